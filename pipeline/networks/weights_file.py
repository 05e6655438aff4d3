"""Weights in a file of the user's."""

from pathlib import Path

from pipeline.core.errors import UserError
from pipeline.core.files import read_json
from pipeline.networks.given_weights import GivenWeights, Statistics, digest_of
from pipeline.networks.weights import DESCRIPTION, WEIGHTS, Weights, read_weights

SHOWN_DIGITS = 12
"""Of the SHA-256 of a file, to tell it from another of its name."""


def find_file(*, backbone: str, choice: str, entry: str | None, key: str) -> GivenWeights:  # noqa: ARG001  (of all origins)
    """Return the weights in the file ``choice``, whose normalisation is known where this pipeline wrote it.

    Raises:
        UserError: there is no such file, or it cannot be read.
    """
    path = Path(choice)
    return GivenWeights(
        title=f"the weights in {path.name} (sha256 {digest_of(path, key)[:SHOWN_DIGITS]})",
        statistics=_described(path),
        read=lambda: _read(path, entry, key),
        file=path,
    )


def _read(path: Path, entry: str | None, key: str) -> Weights:
    """Return the weights at ``entry`` of the file ``path``; errors name ``key``."""
    try:
        return read_weights(path, entry=entry)
    except UserError as error:
        raise UserError(f"{key}: {error}") from error


def _described(path: Path) -> Statistics | None:
    """Return the normalisation in the description beside weights that this pipeline has written; else None."""
    description = path.with_name(DESCRIPTION)
    if path.name != WEIGHTS or not description.is_file():
        return None
    arguments = read_json(description).get("arguments")
    if not isinstance(arguments, dict) or not {"mean", "std"} <= set(arguments):
        return None
    return Statistics([*arguments["mean"]], [*arguments["std"]])
