"""Networks by name: the one place where names from a params file become modules."""

from collections.abc import Callable, Sequence

from torch import nn

from models.backbones.cifar_resnet import CifarResNet
from models.backbones.torchvision_trunk import TorchvisionTrunk, build_torchvision_classifier, torchvision_names
from models.backbones.wide_resnet import WideResNet
from models.networks import Classifier
from models.shape_transform import LogitTransform


def _resnet(depth: int, widths: tuple[int, int, int, int] = (16, 16, 32, 64)) -> Callable[[], nn.Module]:
    return lambda: CifarResNet(depth=depth, widths=widths)


def _wide_resnet(depth: int, widen_factor: int) -> Callable[[], nn.Module]:
    return lambda: WideResNet(depth=depth, widen_factor=widen_factor)


SMALL_IMAGE_TRUNKS: dict[str, Callable[[], nn.Module]] = {
    "resnet8": _resnet(8),
    "resnet20": _resnet(20),
    "resnet32": _resnet(32),
    "resnet56": _resnet(56),
    "resnet110": _resnet(110),
    "resnet8x4": _resnet(8, (32, 64, 128, 256)),
    "resnet32x4": _resnet(32, (32, 64, 128, 256)),
    "wrn_16_2": _wide_resnet(16, 2),
    "wrn_40_1": _wide_resnet(40, 1),
    "wrn_40_2": _wide_resnet(40, 2),
}


def build_trunk(backbone: str) -> nn.Module:
    """Return the feature trunk of ``backbone``, with its width as ``channels``: images to features (B, C, H', W').

    Raises:
        ValueError: the name is unknown, or the network has no feature map to pool.
    """
    check_backbone(backbone)
    return SMALL_IMAGE_TRUNKS[backbone]() if backbone in SMALL_IMAGE_TRUNKS else TorchvisionTrunk(backbone)


def check_backbone(name: str) -> None:
    """Raise ValueError, listing the known names, where no backbone is called ``name``."""
    if name not in SMALL_IMAGE_TRUNKS and name not in torchvision_names():
        raise ValueError(
            f"unknown backbone {name!r}; known: {', '.join(SMALL_IMAGE_TRUNKS)} (small images), "
            f"and torchvision's classifiers: {', '.join(sorted(torchvision_names()))}"
        )


def build_classifier(*, backbone: str, num_classes: int, mean: Sequence[float], std: Sequence[float]) -> Classifier:
    """Return a plain network with random weights.

    Raises:
        ValueError: the backbone's name is unknown.
    """
    check_backbone(backbone)
    if backbone in SMALL_IMAGE_TRUNKS:
        trunk = build_trunk(backbone)
        network: nn.Module = nn.Sequential(trunk, LogitTransform(trunk_channels(trunk), num_classes))
    else:
        network = build_torchvision_classifier(backbone, num_classes)
    return Classifier(network, mean=mean, std=std)


def trunk_channels(trunk: nn.Module) -> int:
    """Return the number of channels of the features of ``trunk``."""
    channels = trunk.channels
    assert isinstance(channels, int)
    return channels


def count_parameters(network: nn.Module) -> int:
    """Return the number of trainable values of ``network``."""
    return sum(parameter.numel() for parameter in network.parameters())
