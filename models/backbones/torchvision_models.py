"""Torchvision's classifiers, cut into stages and a head."""

import functools
from collections.abc import Sequence
from typing import Any

from torch import nn
from torchvision import models

from .backbone import BackboneAndHead, cannot_take
from .cutting import cut_classifier


@functools.cache
def torchvision_names() -> frozenset[str]:
    """Return the names of torchvision's image classifiers."""
    return frozenset(models.list_models(module=models))


def build_torchvision_classifier(name: str, num_classes: int, image_size: Sequence[int] | None = None) -> nn.Module:
    """Return torchvision's classifier ``name`` with random weights: images (B, 3, H, W) to logits (B, num_classes).

    A vision transformer takes images of one size alone, and is built for ``image_size`` (H, W).

    Raises:
        ValueError: it cannot be built for images of this size.
    """
    options: dict[str, Any] = {"num_classes": num_classes}
    if name in {"googlenet", "inception_v3"}:  # their auxiliary heads change what forward returns
        options.update(aux_logits=False, init_weights=True)
    if name.startswith("vit_") and image_size is not None:
        if image_size[0] != image_size[1]:
            raise ValueError(cannot_take(image_size, "its images are square"))
        options["image_size"] = image_size[0]
    try:
        classifier: nn.Module = models.get_model(name, weights=None, **options)
    except AssertionError as error:
        raise ValueError(cannot_take(image_size or (), error)) from error
    return classifier


def cut_torchvision_classifier(name: str, num_classes: int, image_size: Sequence[int] | None) -> BackboneAndHead:
    """Return torchvision's classifier ``name`` with random weights, cut into its stages and its head."""
    return cut_classifier(build_torchvision_classifier(name, num_classes, image_size), image_size=image_size)
