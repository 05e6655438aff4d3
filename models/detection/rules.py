"""What is particular to a kind of detector: its head, where it looks, and what it answers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList

if TYPE_CHECKING:
    from .places import Places

LEAST_VALUES = 2
"""From which a normalisation takes mean and variance."""
AllReduce = Callable[[Tensor], Tensor]
"""Returns the sum of a tensor over all processes."""


class HeadSettings(NamedTuple):
    """How the head of a detector is made."""

    width: int
    """Channels of the levels."""
    num_classes: int
    num_convs: int
    """Convolutions of each branch."""
    center_sampling_radius: float
    """Of FCOS: so many strides around the centre of an object its places learn it."""
    strides: tuple[int, ...]
    """Pixels of the image between two places, of each level."""
    image_size: tuple[int, int]
    """Height and width of the images."""

    @property
    def fewest_places(self) -> int:
        """Return the cells of the coarsest level."""
        height, width = self.image_size
        return (height // self.strides[-1]) * (width // self.strides[-1])


def require_normalisable(settings: HeadSettings, groups: int) -> None:
    """Raise ValueError where one image gives a group normalisation of a head a single value, which it refuses."""
    if settings.width // groups * settings.fewest_places < LEAST_VALUES:
        size = " x ".join(map(str, settings.image_size))
        raise ValueError(
            f"detector.width: got {settings.width}, whose {groups} groups have one channel each, and the coarsest "
            f"level has one place on images of {size} pixels: nothing to normalise; give {2 * groups}, fewer levels "
            "or larger images"
        )


class Rules(ABC):
    """A kind of detector. It holds no weights of its own: those of its head are the detector's.

    Args:
        settings: how its head is made.
    """

    name: ClassVar[str]
    """As in ``models.detection.detectors.DETECTORS``."""
    output_names: ClassVar[tuple[str, ...]] = ()
    """What the head's tensors are called; none where it does not deploy."""
    published_names: ClassVar[tuple[tuple[str, str], ...]] = ()
    """(pattern, replacement) pairs that turn the names of torchvision's published head into those used here."""

    def __init__(self, settings: HeadSettings) -> None:
        self.settings = settings

    @abstractmethod
    def build_head(self) -> nn.Module:
        """Return the head with random weights.

        Raises:
            ValueError: there is no such head of this width, or with so many convolutions.
        """

    @abstractmethod
    def anchor_generator(self) -> AnchorGenerator:
        """Return what the places and their anchors follow from."""

    @abstractmethod
    def answered(self, head: nn.Module, maps: Sequence[Tensor], places: Places) -> Any:
        """Return what ``head`` answers on the levels ``maps`` of a pyramid.

        It has ``losses(boxes, classes, all_reduce=)`` and ``detect(post)``; see ``models.detection.one_stage``.
        """


class Stub(nn.Module):
    """Stands for the backbone of a torchvision detector that is given its feature maps."""

    def __init__(self, out_channels: int) -> None:
        super().__init__()
        self.out_channels = out_channels

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x``."""
        return x


def anchors_of(generator: AnchorGenerator, maps: Sequence[Tensor], image_size: tuple[int, int]) -> Tensor:
    """Return the anchors (P, 4) of all places of ``maps`` (B, C, H', W') for images of ``image_size`` (H, W)."""
    images = ImageList(torch.zeros(1, 3, *image_size), [image_size])
    found: list[Any] = generator(images, list(maps))
    return torch.as_tensor(found[0])
