"""The table of backbone sources: where a backbone's name is looked up, and what builds it.

A name is ``SOURCE:NAME`` (``torchvision:resnet18``), or the bare name of a network of a source that allows it
(``resnet8``). To add a source: a function from a name, a number of classes and the size of the images to backbone and
head, in a file of this folder, and an entry here. Bare names must differ between sources.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from ..core.table import Entry, Table, unknown_name
from .catalog import SMALL_IMAGE_BACKBONES

if TYPE_CHECKING:
    from .backbone import BackboneAndHead

    Build = Callable[[str, int, Sequence[int] | None], BackboneAndHead]
    """From a name, the number of classes and (H, W) of the images, where known, to the network with random weights."""


def _no_file(name: str) -> None:
    """Return the fingerprint of a network that comes from no file."""


@dataclass(frozen=True, kw_only=True)
class BackboneSourceEntry(Entry):
    """A source of backbones in the table."""

    load: Callable[[], Build]
    names: Callable[[], Collection[str]] | None
    """Returns the names that it knows; None: they are files of the user's, which ``fingerprint`` looks for."""
    imports_pytorch: bool
    """Whether listing the names imports PyTorch, which takes seconds."""
    form: str = ""
    """How its networks are named, such as ``timm:NAME``; empty where their names also stand alone."""
    how_to_list: str = ""
    """What to say in place of the names, where they are too many."""
    fingerprint: Callable[[str], str | None] = _no_file
    """Returns a digest of the user's files behind a name, None where there are none; raises ValueError where they are
    not there. It imports no PyTorch."""


class FoundBackbone(NamedTuple):
    """A backbone's name, looked up."""

    source: BackboneSourceEntry
    name: str
    """What the source calls it."""


def _small_images() -> Build:
    from .small_images import build_small_image_network

    return build_small_image_network


def _torchvision() -> Build:
    from .torchvision_models import cut_torchvision_classifier

    return cut_torchvision_classifier


def _torchvision_names() -> Collection[str]:
    from .torchvision_models import torchvision_names

    return sorted(torchvision_names())


def _timm() -> Build:
    from .timm_models import cut_timm_classifier

    return cut_timm_classifier


def _timm_names() -> Collection[str]:
    from .timm_models import timm_names

    return sorted(timm_names())


def _python() -> Build:
    from .python_file import cut_python_classifier

    return cut_python_classifier


def _python_fingerprint(name: str) -> str:
    from .local_imports import file_and_function, file_digest

    return file_digest(file_and_function(name)[0])


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
    BackboneSourceEntry(
        name="timm",
        description="timm's image classifiers, cut into stages, as `timm:NAME`",
        load=_timm,
        names=_timm_names,
        imports_pytorch=True,
        form="timm:NAME",
        how_to_list="more than a thousand: python -c 'import timm; print(*timm.list_models())' lists them",
    ),
    BackboneSourceEntry(
        name="python",
        description="a function of your own, from the number of classes to the network, as `python:FILE.py:FUNCTION`",
        load=_python,
        names=None,
        imports_pytorch=False,
        form="python:FILE.py:FUNCTION",
        how_to_list="python:FILE.py:FUNCTION, where FUNCTION(num_classes) returns a torch.nn.Module, images to logits",
        fingerprint=_python_fingerprint,
    ),
)


def known_without_pytorch(name: str) -> bool:
    """Return whether a source that lists its networks without PyTorch knows the backbone ``name``."""
    source, colon, rest = name.partition(":")
    sources = [entry for entry in BACKBONE_SOURCES.values() if entry.names is not None and not entry.imports_pytorch]
    if colon:
        return any(entry.name == source and entry.names is not None and rest in entry.names() for entry in sources)
    return any(not entry.form and entry.names is not None and name in entry.names() for entry in sources)


def find_backbone(name: str) -> FoundBackbone:
    """Return the source of the backbone ``name``, and what that calls it.

    Raises:
        ValueError: no source knows it; the message has the nearest names.
    """
    prefix, colon, rest = name.partition(":")
    if colon:
        source = BACKBONE_SOURCES[prefix]
        if source.names is not None and rest not in (known := source.names()):
            raise ValueError(unknown_name(f"network of {prefix}", rest, known))
        return FoundBackbone(source, rest)
    bare = [entry for entry in BACKBONE_SOURCES.values() if not entry.form and entry.names is not None]
    known = []
    for entry in bare:
        names = entry.names() if entry.names is not None else ()
        if name in names:
            return FoundBackbone(entry, name)
        known += names
    known += [f"{prefix}:{name}" for prefix in _other_sources(name)]
    forms = ", ".join(entry.form for entry in BACKBONE_SOURCES.values() if entry.form)
    raise ValueError(f"{unknown_name('backbone', name, known)}, others as {forms}")


def _other_sources(name: str) -> Iterator[str]:
    """Yield the sources that know ``name``, but with their own before it."""
    for entry in BACKBONE_SOURCES.values():
        if entry.form and entry.names is not None:
            with contextlib.suppress(ValueError):  # it is not installed
                if name in entry.names():
                    yield entry.name


def backbone_fingerprint(name: str) -> str | None:
    """Return a digest of the user's files behind the backbone ``name``; None where there are none.

    Raises:
        ValueError: its source is unknown, or a file is not there or cannot be read.
    """
    prefix, colon, rest = name.partition(":")
    return BACKBONE_SOURCES[prefix].fingerprint(rest) if colon else None
