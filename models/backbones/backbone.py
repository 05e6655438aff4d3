"""Feature backbones: networks cut into stages, whose outputs are the feature maps at which knowledge is transferred."""

from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn


class Untraced(NamedTuple):
    """What tracing a network does not look into."""

    modules: Collection[type[nn.Module]] = ()
    functions: Collection[Callable[..., Any]] = ()


NOTHING = Untraced()
Stage = Callable[[Tensor], Tensor]
"""A part of a backbone: feature map (B, C, H, W) to feature map (B, C', H', W')."""


class Backbone(nn.Module):
    """A chain of stages from images (B, 3, H, W) to the last feature map (B, C, H', W').

    Whoever needs a feature map on the way calls ``stages`` one by one; there are no hooks.
    """

    widths: tuple[int, ...]
    """Channels that each stage returns."""
    why_uncut: str = ""
    """Of a network without stages: what stands in the way of cutting it."""
    untraced: Untraced = NOTHING
    """What tracing it does not look into."""
    image_size: tuple[int, ...] | None = None
    """(H, W) of the images that it is built for, where that is known."""
    published_names: tuple[tuple[str, str], ...] = ()
    """(pattern, replacement) pairs that turn the names of weights published for this family into those used here."""

    _compiled: Sequence[Stage] | None = None

    def eager_stages(self) -> Sequence[Stage]:
        """Return the stages in order, as each family computes them."""
        raise NotImplementedError

    def stages(self) -> Sequence[Stage]:
        """Return the stages in order, compiled where they have been; their composition is the backbone."""
        return self._compiled or self.eager_stages()

    def compile_stages(self) -> None:
        """Let ``torch.compile`` make each stage faster; it does so when the stage is first called."""
        self._compiled = [torch.compile(stage, dynamic=False) for stage in self.eager_stages()]

    def decompile_stages(self) -> None:
        """Run the stages as they are from here on."""
        self._compiled = None

    @property
    def channels(self) -> int:
        """Return the channels of the last feature map."""
        return self.widths[-1]

    def forward(self, images: Tensor) -> Tensor:
        """Return the last feature map (B, C, H', W')."""
        x = images
        for stage in self.stages():
            x = stage(x)
        return x


def cannot_take(image_size: Sequence[int], reason: object) -> str:
    """Return what is said of a network that takes no images of ``image_size`` (H, W), for the ``reason``."""
    size = " x ".join(map(str, image_size))
    return f"cannot take images of {size} pixels ({reason}); choose another, or set image_size"


class BackboneAndHead(NamedTuple):
    """A classifier in two parts: ``head(backbone(images))`` are its logits."""

    backbone: Backbone
    head: nn.Module
