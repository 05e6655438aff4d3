"""The table of origins of weights: a file, torchvision, timm.

To add one: a function that finds its weights, in a file of this folder, and an entry here. Nothing here imports PyTorch
before an entry is loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from models.backbones.sources import known_without_pytorch
from models.core.table import Entry, Table
from pipeline.core.errors import UserError

if TYPE_CHECKING:
    from pipeline.networks.given_weights import GivenWeights

    Find = Callable[..., GivenWeights]
    """Called with ``backbone``, ``choice`` (what the user wrote, without the origin's name), ``entry`` and ``key``."""

FILE = "file"


@dataclass(frozen=True, kw_only=True)
class OriginEntry(Entry):
    """An origin in the table; ``name``, or ``name:CHOICE``, stands for it in a parameters file."""

    load: Callable[[], Find]
    may_have: Callable[[str], bool] = lambda _: True
    """Whether it may have weights of a backbone, as far as its name tells."""


def _file() -> Find:
    from pipeline.networks.weights_file import find_file

    return find_file


def _torchvision() -> Find:
    from pipeline.networks.torchvision_weights import find_torchvision

    return find_torchvision


def _timm() -> Find:
    from pipeline.networks.timm_weights import find_timm

    return find_timm


def _may_be_torchvisions(backbone: str) -> bool:
    return backbone.partition(":")[0] == "torchvision" or (":" not in backbone and not known_without_pytorch(backbone))


ORIGINS = Table(
    "origin of weights",
    OriginEntry(name=FILE, description="a path: .safetensors, or what torch.save wrote", load=_file),
    OriginEntry(
        name="torchvision",
        description="those that torchvision recommends for the backbone, or those of a name: torchvision:IMAGENET1K_V1",
        load=_torchvision,
        may_have=_may_be_torchvisions,
    ),
    OriginEntry(
        name="timm",
        description="those that timm recommends for a backbone timm:NAME, or those of a tag: timm:a1_in1k",
        load=_timm,
        may_have=lambda backbone: backbone.startswith("timm:"),
    ),
)


def origin_of(weights: str) -> OriginEntry:
    """Return the origin of ``weights`` as they stand in a parameters file; what no other origin names is a file."""
    name = weights.partition(":")[0]
    return ORIGINS[name if name in ORIGINS and name != FILE else FILE]


def is_published(weights: str | None) -> bool:
    """Return whether ``weights`` are those of a library rather than a file's."""
    return weights is not None and origin_of(weights).name != FILE


def find_weights(
    backbone: str, weights: str, *, entry: str | None, key: str, whole: Sequence[str] = ()
) -> GivenWeights:
    """Return the weights that stand in a parameters file under ``key``.

    Args:
        entry: where in a file they stand; None: where they usually do.
        whole: what libraries may call the whole network of this backbone, whose weights go before the backbone's.

    Raises:
        UserError: there are none such; says which there are.
    """
    origin = origin_of(weights)
    choice = weights.partition(":")[2] if is_published(weights) else weights
    refusals = []
    for name in [*(whole if is_published(weights) else ()), backbone]:
        try:
            return origin.load()(backbone=name, choice=choice, entry=entry, key=key)
        except UserError as error:
            refusals.append(str(error).removeprefix(f"{key}: "))
    raise UserError(f"{key}: {'; '.join(refusals)}")
