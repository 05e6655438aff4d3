"""Plain networks and feature trunks by name."""

import difflib
from collections.abc import Sequence

import torch
from torch import nn

from models.backbones.cifar_resnet import CifarResNet
from models.backbones.shapes import RESNETS, SMALL_IMAGE_BACKBONES, WIDE_RESNETS
from models.backbones.torchvision_trunk import TorchvisionTrunk, build_torchvision_classifier, torchvision_names
from models.backbones.wide_resnet import WideResNet
from models.networks import Classifier
from models.shape_transform import LogitTransform


def build_trunk(backbone: str) -> nn.Module:
    """Return the feature trunk of ``backbone``, with its width as ``channels``: images to features (B, C, H', W').

    Raises:
        ValueError: the name is unknown, or the network has no feature map to pool.
    """
    check_backbone(backbone)
    if backbone in RESNETS:
        return CifarResNet(**RESNETS[backbone])
    if backbone in WIDE_RESNETS:
        return WideResNet(**WIDE_RESNETS[backbone])
    return TorchvisionTrunk(backbone)


def check_backbone(name: str) -> None:
    """Raise ValueError, with the nearest names first among the known, where no backbone is called ``name``."""
    known = [*SMALL_IMAGE_BACKBONES, *sorted(torchvision_names())]
    if name not in known:
        near = difflib.get_close_matches(name, known)
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        raise ValueError(f"unknown backbone {name!r}; {hint}known: {', '.join(known)}")


def build_classifier(*, backbone: str, num_classes: int, mean: Sequence[float], std: Sequence[float]) -> Classifier:
    """Return a plain network with random weights.

    Raises:
        ValueError: the backbone's name is unknown.
    """
    check_backbone(backbone)
    if backbone in SMALL_IMAGE_BACKBONES:
        trunk = build_trunk(backbone)
        network: nn.Module = nn.Sequential(trunk, LogitTransform(trunk_channels(trunk), num_classes))
    else:
        network = build_torchvision_classifier(backbone, num_classes)
    return Classifier(network, mean=mean, std=std)


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


def trunk_channels(trunk: nn.Module) -> int:
    """Return the number of channels of the features of ``trunk``."""
    channels = trunk.channels
    assert isinstance(channels, int)
    return channels


def count_parameters(network: nn.Module) -> int:
    """Return the number of trainable values of ``network``."""
    return sum(parameter.numel() for parameter in network.parameters())
