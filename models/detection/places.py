"""Where a detector looks: the places of its levels, and the anchors that stand there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor, nn

from .detectors import DETECTORS, DetectorEntry
from .published import PARTS
from .rules import HeadSettings, anchors_of

if TYPE_CHECKING:
    from .rules import Rules


class Places(nn.Module):
    """The anchors of all levels, and the rules by which answers at them become boxes. It learns nothing.

    Args:
        maps: the pyramid's levels for an image, finest first, (1, C, H', W') each.
    """

    anchors: Tensor
    """(P, 4) x1, y1, x2, y2 in pixels of the image."""

    def __init__(self, name: str, settings: HeadSettings, maps: Sequence[Tensor]) -> None:
        super().__init__()
        self.name = name
        self.image_size = settings.image_size
        self.strides = settings.strides
        self.num_classes = settings.num_classes
        self.rules: Rules = DETECTORS[name].load()(settings)
        anchors = anchors_of(self.rules.anchor_generator(), maps, settings.image_size)
        self.register_buffer("anchors", anchors, persistent=False)
        cells = [level.shape[2] * level.shape[3] for level in maps]
        per_cell = len(anchors) // sum(cells)
        self.num_per_level = [per_cell * count for count in cells]

    @property
    def entry(self) -> DetectorEntry:
        """Return the detector's entry in the table."""
        return DETECTORS[self.name]

    @property
    def renamings(self) -> tuple[tuple[str, str], ...]:
        """Return (pattern, replacement) pairs from the names of torchvision's detectors to those used here."""
        return (*PARTS, *self.rules.published_names)

    @property
    def output_names(self) -> tuple[str, ...]:
        """Return what the head's tensors are called."""
        return self.rules.output_names

    def __len__(self) -> int:
        """Return the number of anchors."""
        return len(self.anchors)


def strides_of(maps: Sequence[Tensor], image_size: tuple[int, int]) -> tuple[int, ...]:
    """Return how many pixels of an image of ``image_size`` (H, W) lie between two places of each level.

    Raises:
        ValueError: a level does not divide the image evenly; has the nearest sizes that every level divides.
    """
    height, width = image_size
    found = []
    for level in maps:
        rows, columns = level.shape[2:]
        stride = height // rows
        if stride * rows != height or stride * columns != width:
            raise ValueError(_does_not_fit(maps, image_size))
        found.append(stride)
    return tuple(found)


def _does_not_fit(maps: Sequence[Tensor], image_size: tuple[int, int]) -> str:
    """Return the message on an image that the levels do not divide; each halves the resolution of the one before."""
    rows, columns = maps[-1].shape[2:]
    largest = 1
    while largest * rows < image_size[0] or largest * columns < image_size[1]:
        largest *= 2
    fitting = [_around(side, largest) for side in image_size]
    smaller, larger = (" x ".join(str(pair[i]) for pair in fitting) for i in (0, 1))
    near = larger if 0 in (pair[0] for pair in fitting) or smaller == larger else f"{smaller} or {larger}"
    size = " x ".join(map(str, image_size))
    return (
        f"the {len(maps)} levels of the pyramid do not divide images of {size} pixels evenly: the coarsest has a "
        f"stride of {largest}; give multiples of {largest} as prepare_data.image_size, e.g. {near}, or take "
        "fewer levels"
    )


def _around(side: int, stride: int) -> tuple[int, int]:
    """Return the multiples of ``stride`` at or below and at or above ``side``."""
    return side // stride * stride, -(-side // stride) * stride
