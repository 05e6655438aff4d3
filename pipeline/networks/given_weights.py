"""Weights that a network starts from, found but not yet read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pipeline.core.errors import UserError, readable_file
from pipeline.core.files import sha256
from pipeline.core.printable import printable

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
