"""timm's image classifiers, cut into stages and a head; timm is an optional package."""

import functools
from collections.abc import Sequence
from types import ModuleType
from typing import Any

from torch import nn

from .backbone import BackboneAndHead, Untraced, cannot_take
from .cutting import cut_classifier
from .tracing import first_line

NOT_INSTALLED = "the Python package timm is not installed; pip install -e '.[timm]' does it, and so does make install"


@functools.cache
def timm_names() -> frozenset[str]:
    """Return the names of timm's networks.

    Raises:
        ValueError: timm is not installed.
    """
    return frozenset(_timm().list_models())


def build_timm_classifier(name: str, num_classes: int, image_size: Sequence[int] | None = None) -> nn.Module:
    """Return timm's network ``name`` with random weights: images (B, 3, H, W) to logits (B, num_classes).

    A network that takes images of one size alone is built for ``image_size``.

    Raises:
        ValueError: timm is not installed, or builds no such network for images of this size.
    """
    timm = _timm()
    options: dict[str, Any] = {"num_classes": num_classes}
    about = timm.models.get_pretrained_cfg(name)
    if image_size is not None and about is not None and about.fixed_input_size:
        options["img_size"] = tuple(image_size)
    try:
        classifier: nn.Module = timm.create_model(name, pretrained=False, **options)
    except (AssertionError, RuntimeError, TypeError, ValueError) as error:
        reason = first_line(error)
        message = cannot_take(image_size, reason) if image_size is not None else f"timm cannot build it ({reason})"
        raise ValueError(message) from error
    return classifier


def cut_timm_classifier(name: str, num_classes: int, image_size: Sequence[int] | None) -> BackboneAndHead:
    """Return timm's network ``name`` with random weights, cut into its stages and its head."""
    classifier = build_timm_classifier(name, num_classes, image_size)
    about = _timm().models.get_pretrained_cfg(name)
    size = image_size or (about.input_size[1:] if about is not None else None)
    return cut_classifier(classifier, image_size=size, untraced=_untraced())


def _untraced() -> Untraced:
    """Return what timm says that tracing must not look into."""
    layers = _timm().layers
    return Untraced(tuple(layers.get_notrace_modules()), tuple(layers.get_notrace_functions()))


def _timm() -> ModuleType:
    try:
        import timm
    except ModuleNotFoundError as error:
        raise ValueError(NOT_INSTALLED) from error
    package: ModuleType = timm
    package.layers.set_fused_attn(
        enable=False
    )  # PyTorch's ONNX exporter takes the fused operator of some networks only
    return package
