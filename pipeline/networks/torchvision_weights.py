"""The weights that torchvision publishes for its classifiers, with the normalisation that they were trained with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pipeline.core.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

PREFIX = "torchvision"
KEY = "train_teacher.weights"


def is_published(weights: str | None) -> bool:
    """Return whether ``weights`` means torchvision's own (``torchvision``, ``torchvision:NAME``) rather than a file."""
    return weights is not None and weights.partition(":")[0] == PREFIX


def find_weights(backbone: str, weights: str) -> Any:
    """Return torchvision's entry of the weights NAME of ``backbone``, or of those that it recommends.

    Raises:
        UserError: torchvision has no weights of that name, or none for the backbone.
    """
    from torchvision import models

    try:
        entries = models.get_model_weights(backbone.removeprefix(f"{PREFIX}:")).__members__
    except ValueError as error:
        raise UserError(f"{KEY}: torchvision has no network {backbone!r}; give a file, or null to train") from error
    name = weights.partition(":")[2] or "DEFAULT"
    if name not in entries:
        raise UserError(f"{KEY}: torchvision has no weights {name!r} of {backbone}; it has {', '.join(entries)}")
    return entries[name]


def published_statistics(entry: Any) -> tuple[list[float], list[float]]:
    """Return mean and standard deviation of each channel by which the images of ``entry`` were normalised."""
    transforms = entry.transforms()
    return list(transforms.mean), list(transforms.std)


def fetch_weights(entry: Any) -> dict[str, Tensor]:
    """Return the tensors of ``entry``, from PyTorch's cache (TORCH_HOME) or downloaded into it and verified.

    Raises:
        UserError: they cannot be downloaded, or are damaged.
    """
    try:
        return dict(entry.get_state_dict(progress=False, check_hash=True))
    except (OSError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"{KEY}: {entry.url} cannot be fetched ({reason}); download it elsewhere and give the file's path"
        ) from error
