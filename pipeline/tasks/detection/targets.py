"""Objects on images, as tensors that follow what augmentation does to the pixels."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Self

import torch
from torch import Tensor

from pipeline.core.arrays import Truth
from pipeline.data.augmentation import Geometry

LEAST_SIDE = 1.0
"""Pixels of a side below which a moved box is dropped."""
LEAST_SHARE = 0.1
"""Of a box's area; one of which less is left in the image is dropped."""


@dataclass(frozen=True)
class BoxTargets:
    """M objects on N images; the arrays are those of ``encode_objects``."""

    boxes: Tensor
    """float32 (M, 4): x1 y1 x2 y2 in pixels of the network's input."""
    classes: Tensor
    """int64 (M,)."""
    offsets: Tensor
    """int64 (N + 1,): the objects of image i are the rows from offsets[i] to offsets[i + 1]."""
    ignored: Tensor
    """bool (M,): neither learned nor missed."""
    areas: Tensor
    """float32 (M,): pixels of the object in the image as it is, before it is brought to a size."""
    sizes: Tensor
    """int64 (N, 2): height and width of that image."""
    scales: Tensor
    """float64 (N,): pixels of the input for each of its pixels, before augmentation."""

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> Self:
        """Return the objects in the ``tensors`` of a file.

        Raises:
            KeyError: one is missing.
        """
        return cls(**{field.name: tensors[field.name] for field in fields(cls)})

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.sizes)

    def select(self, positions: Tensor | slice) -> Self:
        """Return the objects of the images at ``positions``."""
        chosen = torch.arange(len(self), device=self.offsets.device)[positions]
        lengths = self.offsets.diff()[chosen]
        offsets = _offsets(lengths)
        count = int(offsets[-1])
        first = torch.repeat_interleave(self.offsets[chosen] - offsets[:-1], lengths, output_size=count)
        found = self._rows(first + torch.arange(count, device=first.device), offsets)
        return replace(found, sizes=self.sizes[chosen], scales=self.scales[chosen])

    def to(self, device: torch.device) -> Self:
        """Return the same on ``device``."""
        return type(self)(**{field.name: getattr(self, field.name).to(device) for field in fields(self)})

    def truth(self) -> Truth:
        """Return the same as NumPy arrays, by their names."""
        return {field.name: getattr(self, field.name).cpu().numpy() for field in fields(self)}

    def moved(self, geometry: Geometry) -> Self:
        """Return the objects where ``geometry`` moves them, cut at the edges of the images.

        One of which less than ``LEAST_SIDE`` or ``LEAST_SHARE`` is left is dropped; one that was thinner stays as long
        as nothing is cut from that side.
        """
        count = len(self.boxes)
        images = torch.arange(len(self), device=self.offsets.device)
        images = torch.repeat_interleave(images, self.offsets.diff(), output_size=count)
        across = self.boxes[:, 0::2] * geometry.scale_x[images, None] + geometry.shift_x[images, None]  # (M, 2)
        down = self.boxes[:, 1::2] * geometry.scale_y[images, None] + geometry.shift_y[images, None]
        (left, right), (top, bottom) = (ends.sort(dim=1).values.unbind(dim=1) for ends in (across, down))
        height, width = geometry.size
        whole = torch.stack([left, top, right, bottom], dim=1)
        seen = torch.stack(
            [left.clamp(0, width), top.clamp(0, height), right.clamp(0, width), bottom.clamp(0, height)], dim=1
        )
        sides = seen[:, 2:] - seen[:, :2]
        least = (whole[:, 2:] - whole[:, :2]).clamp(max=LEAST_SIDE)
        kept = (sides > 0).all(dim=1) & (sides >= least).all(dim=1) & (sides.prod(dim=1) >= LEAST_SHARE * _areas(whole))
        before = _offsets(kept)
        return replace(self._rows(kept.nonzero().squeeze(1), before[self.offsets]), boxes=seen[kept])

    def _rows(self, rows: Tensor, offsets: Tensor) -> Self:
        """Return the objects at ``rows``, which are those of the images as ``offsets`` say."""
        of_objects = {name: getattr(self, name)[rows] for name in ("boxes", "classes", "ignored", "areas")}
        return replace(self, **of_objects, offsets=offsets)


def _offsets(lengths: Tensor) -> Tensor:
    """Return where each of some parts of ``lengths`` (N,) begins when they follow each other, and the end, (N + 1,)."""
    return torch.cat([lengths.new_zeros(1, dtype=torch.int64), lengths.cumsum(0)])


def _areas(boxes: Tensor) -> Tensor:
    return (boxes[:, 2:] - boxes[:, :2]).prod(dim=1)
