"""Weights that a network starts from, found but not yet read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pipeline.core.errors import UserError, readable_file
from pipeline.core.files import read_json, sha256
from pipeline.core.printable import printable
from pipeline.networks.spec import DESCRIPTION, WEIGHTS

if TYPE_CHECKING:
    from pipeline.networks.weights import Weights


class Statistics(NamedTuple):
    """By which images are normalised: of red, green and blue in [0, 1]."""

    mean: list[float]
    std: list[float]


@dataclass(frozen=True, kw_only=True)
class GivenWeights:
    """Weights whose origin is known and there."""

    title: str
    """Says what they are, after "started from": "torchvision's weights IMAGENET1K_V1 of resnet18"."""
    statistics: Statistics | None
    """By which the images were normalised that they were trained on; None: unknown."""
    read: Callable[[], Weights]
    """Returns the tensors, downloaded where they have to be.

    Raises UserError where they cannot be had.
    """
    file: Path | None = None
    """The user's file that holds them; None: they come with a library."""
    description: Path | None = None
    """The file beside it that says how they were made, where this pipeline wrote both."""

    @property
    def files(self) -> list[Path]:
        """Return the user's files that decide about what starts from them."""
        return [path for path in (self.file, self.description) if path is not None]


def digest_of(path: Path, key: str) -> str:
    """Return the SHA-256 of the file of weights ``path``, which stands in a parameters file under ``key``.

    Raises:
        UserError: there is no such file, or it cannot be read.
    """
    if path.is_dir():
        raise UserError(f"{key}: {printable(path)} is a folder; give a file in it")
    if not path.is_file():
        raise UserError(f"{key}: no such file: {printable(path)}")
    with readable_file(path):
        return sha256(path)


def description_of(path: Path) -> Path | None:
    """Return the description beside the weights ``path`` that this pipeline has written; None where there is none."""
    description = path.with_name(DESCRIPTION)
    return description if path.name == WEIGHTS and description.is_file() else None


def statistics_beside(path: Path) -> Statistics | None:
    """Return the normalisation in the description beside the weights ``path``; None where none says any.

    Raises:
        UserError: the description is damaged.
    """
    description = description_of(path)
    arguments = {} if description is None else read_json(description).get("arguments")
    if not isinstance(arguments, dict):
        return None
    mean, std = arguments.get("mean"), arguments.get("std")  # null, of a program that normalises by itself
    return Statistics([*mean], [*std]) if isinstance(mean, list) and isinstance(std, list) else None
