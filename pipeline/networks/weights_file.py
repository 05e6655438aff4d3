"""Weights in a file of the user's."""

from pathlib import Path

from pipeline.core.errors import UserError
from pipeline.networks.given_weights import GivenWeights, description_of, digest_of, statistics_beside
from pipeline.networks.weights import Weights, read_weights

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
        statistics=statistics_beside(path),
        read=lambda: _read(path, entry, key),
        file=path,
        description=description_of(path),
    )


def _read(path: Path, entry: str | None, key: str) -> Weights:
    """Return the weights at ``entry`` of the file ``path``; errors name ``key``."""
    try:
        return read_weights(path, entry=entry)
    except UserError as error:
        raise UserError(f"{key}: {error}") from error
