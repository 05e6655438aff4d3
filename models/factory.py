"""Plain networks and backbones by name."""

from collections.abc import Sequence

import torch
from torch import nn

from models.backbones.backbone import Backbone, BackboneAndHead
from models.backbones.sources import backbone_source
from models.classifier import Classifier

NO_FEATURES = (
    "pools no feature map before its classifier, so there is nothing to transfer or to start a flow from; "
    "choose another convolutional backbone, or method none or metric on logits"
)


def build_parts(name: str, num_classes: int) -> BackboneAndHead:
    """Return the backbone ``name`` and its head with random weights.

    Raises:
        ValueError: the name is unknown.
    """
    return backbone_source(name).load()(name, num_classes)


def build_transfer_parts(name: str, num_classes: int) -> BackboneAndHead:
    """Return the backbone ``name``, whose feature maps can be transferred, and its head.

    Raises:
        ValueError: the name is unknown, or the network has no feature map to pool.
    """
    parts = build_parts(name, num_classes)
    require_feature_map(name, parts.backbone)
    return parts


def require_feature_map(name: str, backbone: Backbone) -> None:
    """Raise ValueError where the backbone ``name`` has no feature map to pool."""
    if not backbone.widths:
        raise ValueError(f"backbone {name!r} {NO_FEATURES}")


def build_classifier(*, backbone: str, num_classes: int, mean: Sequence[float], std: Sequence[float]) -> Classifier:
    """Return a plain network with random weights.

    Raises:
        ValueError: the backbone is unknown.
    """
    network, head = build_parts(backbone, num_classes)
    return Classifier(network, head, mean=mean, std=std)


def check_image_size(network: nn.Module, image_size: Sequence[int], *arguments: int) -> None:
    """Run ``network`` once in eval mode on a black image (1, 3, H, W) with its further ``arguments``.

    Raises:
        ValueError: the network cannot take images of this size.
    """
    try:
        with torch.no_grad():
            network.eval()(torch.zeros(1, 3, *image_size), *arguments)
    except (AssertionError, RuntimeError, ValueError) as error:
        size = " x ".join(map(str, image_size))
        raise ValueError(f"cannot take images of {size} pixels ({error}); choose another, or set image_size") from error
    network.train()


def count_parameters(network: nn.Module) -> int:
    """Return the number of trainable values of ``network``."""
    return sum(parameter.numel() for parameter in network.parameters())
