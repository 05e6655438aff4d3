"""Plain networks and backbones by name."""

from collections.abc import Sequence

import torch
from torch import nn

from .backbones.backbone import Backbone, BackboneAndHead, cannot_take
from .backbones.sources import find_backbone
from .backbones.token_maps import tokens_as_map
from .backbones.tracing import UntraceableError
from .classifier import Classifier

STILL_WORKS = "it still serves as a teacher on logits, and as a student of method none, or metric on logits"


def build_parts(name: str, num_classes: int, image_size: Sequence[int] | None = None) -> BackboneAndHead:
    """Return the backbone ``name`` and its head with random weights.

    Args:
        image_size: (H, W) of the images; None: not known, of which networks of one fixed size keep their own.

    Raises:
        ValueError: the name is unknown, or the network cannot be built.
    """
    source, rest = find_backbone(name)
    return source.load()(rest, num_classes, image_size)


def build_transfer_parts(name: str, num_classes: int, image_size: Sequence[int] | None = None) -> BackboneAndHead:
    """Return the backbone ``name``, whose feature maps can be transferred, and its head.

    A vision transformer, which as a plain network is whole, ends in its tokens as a feature map, and has a new head.

    Raises:
        ValueError: the name is unknown, or the network has neither a feature map nor tokens that make one.
    """
    parts = build_parts(name, num_classes, image_size)
    if parts.backbone.widths:
        return parts
    try:
        size = image_size or parts.backbone.image_size
        return tokens_as_map(parts.head, num_classes, image_size=size, untraced=parts.backbone.untraced)
    except UntraceableError as error:
        reasons = dict.fromkeys((str(parts.backbone.why_uncut), str(error)))
        raise ValueError(_no_feature_map(name, ", and ".join(reasons))) from error


def require_feature_map(name: str, backbone: Backbone) -> None:
    """Raise ValueError where the backbone ``name`` has no feature map to pool."""
    if not backbone.widths:
        raise ValueError(_no_feature_map(name, backbone.why_uncut))


def _no_feature_map(name: str, why: str) -> str:
    return f"backbone {name!r} has no feature map to transfer, or to start a flow from: {why}; {STILL_WORKS}"


def build_classifier(
    *,
    backbone: str,
    num_classes: int,
    mean: Sequence[float],
    std: Sequence[float],
    image_size: Sequence[int] | None = None,
    feature_map: bool = False,
) -> Classifier:
    """Return a plain network with random weights.

    Args:
        image_size: (H, W) of the images, for networks that take one size alone.
        feature_map: whether its backbone must end in a feature map; a vision transformer is whole otherwise.

    Raises:
        ValueError: the backbone is unknown, or has no feature map where it must.
    """
    build = build_transfer_parts if feature_map else build_parts
    network, head = build(backbone, num_classes, image_size)
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
        raise ValueError(cannot_take(image_size, error)) from error
    network.train()


def count_parameters(network: nn.Module) -> int:
    """Return the number of trainable values of ``network``."""
    return sum(parameter.numel() for parameter in network.parameters())
