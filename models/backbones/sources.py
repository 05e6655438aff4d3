"""The table of backbone sources: where a backbone's name is looked up, and what builds it.

To add one: a function from a name and a number of classes to backbone and head, in a file of this folder, and an entry
here. Names must differ between sources; the first source that knows a name builds it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

from models.backbones.catalog import SMALL_IMAGE_BACKBONES
from models.core.table import Entry, Table, unknown_name

if TYPE_CHECKING:
    from models.backbones.backbone import BackboneAndHead

    Build = Callable[[str, int], BackboneAndHead]
    """From a name and the number of classes to the network with random weights."""


@dataclass(frozen=True, kw_only=True)
class BackboneSourceEntry(Entry):
    """A source of backbones in the table."""

    load: Callable[[], Build]
    names: Callable[[], Collection[str]]
    """Returns the names that it knows."""
    imports_pytorch: bool
    """Whether listing the names imports PyTorch, which takes seconds."""


def _small_images() -> Build:
    from models.backbones.small_images import build_small_image_network

    return build_small_image_network


def _torchvision() -> Build:
    from models.backbones.torchvision_models import cut_torchvision_classifier

    return cut_torchvision_classifier


def _torchvision_names() -> Collection[str]:
    from models.backbones.torchvision_models import torchvision_names

    return sorted(torchvision_names())


BACKBONE_SOURCES = Table(
    "backbone source",
    BackboneSourceEntry(
        name="small_images",
        description="networks for small images, as in the CRD protocol",
        load=_small_images,
        names=lambda: SMALL_IMAGE_BACKBONES,
        imports_pytorch=False,
    ),
    BackboneSourceEntry(
        name="torchvision",
        description="torchvision's image classifiers, cut into stages",
        load=_torchvision,
        names=_torchvision_names,
        imports_pytorch=True,
    ),
)


def known_without_pytorch(name: str) -> bool:
    """Return whether a source that needs no PyTorch for it knows the backbone ``name``."""
    return any(name in source.names() for source in BACKBONE_SOURCES.values() if not source.imports_pytorch)


def backbone_source(name: str) -> BackboneSourceEntry:
    """Return the source of the backbone ``name``.

    Raises:
        ValueError: no source knows it; the message has the nearest names.
    """
    for source in BACKBONE_SOURCES.values():
        if name in source.names():
            return source
    known = [name for source in BACKBONE_SOURCES.values() for name in source.names()]
    raise ValueError(unknown_name("backbone", name, known))
