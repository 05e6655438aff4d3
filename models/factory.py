"""Plain networks and feature trunks by name."""

import difflib
from collections.abc import Callable, Sequence

import torch
from torch import nn

from models.backbones.bottleneck_resnet import BottleneckResNet
from models.backbones.cifar_mobilenet_v2 import CifarMobileNetV2
from models.backbones.cifar_resnet import CifarResNet
from models.backbones.cifar_shufflenet import CifarShuffleNetV1, CifarShuffleNetV2
from models.backbones.cifar_vgg import CifarVgg
from models.backbones.shapes import SMALL_IMAGE_BACKBONES
from models.backbones.trunk import Parts, Trunk
from models.backbones.wide_resnet import WideResNet
from models.choice import choose
from models.meta_encoders import LayerEncoder
from models.networks import Classifier
from models.shape_transform import LogitTransform

NO_FEATURES = (
    "pools no feature map before its classifier, so there is nothing to transfer or to start a flow from; "
    "choose another convolutional backbone, or method none or metric on logits"
)
FAMILIES: dict[str, Callable[..., Trunk]] = {
    "bottleneck_resnet": BottleneckResNet,
    "mobilenet_v2": CifarMobileNetV2,
    "resnet": CifarResNet,
    "shufflenet_v1": CifarShuffleNetV1,
    "shufflenet_v2": CifarShuffleNetV2,
    "vgg": CifarVgg,
    "wide_resnet": WideResNet,
}


def build_parts(backbone: str, num_classes: int) -> Parts:
    """Return the trunk and the head of ``backbone`` with random weights.

    Raises:
        ValueError: the name is unknown.
    """
    check_backbone(backbone)
    if backbone not in SMALL_IMAGE_BACKBONES:
        from models.backbones.torchvision_trunk import cut_torchvision_classifier  # noqa: PLC0415  (takes seconds)

        return cut_torchvision_classifier(backbone, num_classes)
    shape = SMALL_IMAGE_BACKBONES[backbone]
    trunk = choose(FAMILIES, shape.family, kind="family")(**shape.arguments)
    return Parts(trunk, LogitTransform(trunk.channels, num_classes))


def build_transfer_parts(backbone: str, num_classes: int) -> Parts:
    """Return the trunk and the head of ``backbone``, whose feature maps can be transferred.

    Raises:
        ValueError: the name is unknown, or the network has no feature map to pool.
    """
    parts = build_parts(backbone, num_classes)
    require_feature_map(backbone, parts.trunk)
    return parts


def require_feature_map(backbone: str, trunk: Trunk) -> None:
    """Raise ValueError where ``trunk`` has no feature map to pool."""
    if not trunk.widths:
        raise ValueError(f"backbone {backbone!r} {NO_FEATURES}")


def check_backbone(name: str) -> None:
    """Raise ValueError, with the nearest names first among the known, where no backbone is called ``name``."""
    if name in SMALL_IMAGE_BACKBONES:
        return
    from models.backbones.torchvision_trunk import torchvision_names  # noqa: PLC0415  (takes seconds)

    known = [*SMALL_IMAGE_BACKBONES, *sorted(torchvision_names())]
    if name not in known:
        near = difflib.get_close_matches(name, known)
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        raise ValueError(f"unknown backbone {name!r}; {hint}known: {', '.join(known)}")


def build_classifier(
    *, backbone: str, num_classes: int, mean: Sequence[float], std: Sequence[float], layers: str | None = None
) -> Classifier:
    """Return a plain network with random weights.

    ``layers`` names a meta-encoder that stands as ordinary layers between trunk and a pooled linear head.

    Raises:
        ValueError: a name is unknown, or the backbone has no feature map to put the layers on.
    """
    if layers is None:
        trunk, head = build_parts(backbone, num_classes)
        return Classifier(trunk, head, mean=mean, std=std)
    trunk = build_transfer_parts(backbone, num_classes).trunk
    encoder = LayerEncoder(layers, trunk.channels)
    head = nn.Sequential(encoder, LogitTransform(trunk.channels, num_classes))
    return Classifier(trunk, head, mean=mean, std=std)


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
