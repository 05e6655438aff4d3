"""How worker processes read the image files of an index: brought to one size, or a random part of each."""

import random
from collections.abc import Callable

import numpy as np
import torch

from pipeline.data.dataset import ImageIndex
from pipeline.data.decoding import decode_image
from pipeline.data.image_views import View, jittered, random_part, read_view
from pipeline.data.image_workers import Seen
from pipeline.data.random_crops import random_crop

Span = tuple[float, float]
"""The smallest and the largest of what is drawn."""


class SquareReader:
    """Images as squares: the central one, or a random part of a share of the area from ``crop_scale``."""

    def __init__(self, index: ImageIndex, crop_scale: Span | None) -> None:
        assert index.fit.size is not None
        self.files = index.files
        self.size = index.fit.size
        self.max_megapixels = index.fit.max_megapixels
        self.crop_scale = crop_scale

    def __call__(self, position: int, seed: int) -> Seen:
        """Return the image at ``position`` of the index, cut as ``seed`` says; where its pixels go is not known.

        Raises:
            UserError: its file cannot be read, or is not as it was.
        """
        name, data = self.files.read(position)
        limit = self.max_megapixels
        if self.crop_scale is None:
            return Seen(torch.from_numpy(np.array(decode_image(name, data, self.size, limit))))
        size, scale = self.size[0], self.crop_scale
        return Seen(random_crop(name, data, size=size, scale=scale, seed=seed, max_megapixels=limit))


class LetterboxReader:
    """Whole images, letterboxed; or randomly larger or smaller than that, or a random part.

    Args:
        scale_jitter: smallest and largest factor by which an image differs from the largest that fits; None: 1.
        crop_scale: smallest and largest share of an image that is cut and resized; None: none is cut.
    """

    def __init__(self, index: ImageIndex, *, scale_jitter: Span | None, crop_scale: Span | None) -> None:
        assert index.fit.size is not None
        self.files = index.files
        self.size = index.fit.size
        self.max_megapixels = index.fit.max_megapixels
        self.scale_jitter = scale_jitter
        self.crop_scale = crop_scale

    def __call__(self, position: int, seed: int) -> Seen:
        """Return the image at ``position`` of the index, seen as ``seed`` says, and where its letterboxed pixels go.

        Raises:
            UserError: its file cannot be read, or is not as it was.
        """
        name, data = self.files.read(position)
        draw = self._draw(random.Random(seed))  # noqa: S311  (no secret)
        if draw is None:
            whole = decode_image(name, data, self.size, self.max_megapixels, how="letterbox")
            return Seen(torch.from_numpy(np.array(whole)))
        pixels, view = read_view(name, data, draw, self.size, self.max_megapixels)
        return Seen(torch.from_numpy(pixels), view)

    def _draw(self, generator: random.Random) -> Callable[[tuple[int, int]], View] | None:
        """Return what draws the view of an image from its (h, w); None: nothing is drawn."""
        if self.scale_jitter is not None:
            span = self.scale_jitter
            return lambda size: jittered(size, self.size, span, generator)
        if self.crop_scale is not None:
            share = self.crop_scale
            return lambda size: random_part(size, self.size, share, generator)
        return None
