"""The teacher: trained here, or read from a file of weights."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from models.factory import build_classifier, check_image_size
from models.networks import Classifier
from pipeline.data.store import DataInfo, Split
from pipeline.errors import blamed_on
from pipeline.files import Json
from pipeline.objectives import Supervised
from pipeline.seeding import derive_seed
from pipeline.training import Row, train
from pipeline.weights import load_state, read_weights

INNER = "network."  # prefix of a network's own names among a Classifier's


def teacher_arguments(
    backbone: str, info: DataInfo, *, mean: Sequence[float] | None = None, std: Sequence[float] | None = None
) -> Json:
    """Return the arguments of ``models.factory.build_classifier`` for a teacher of the data ``info``.

    ``mean`` and ``std`` are the normalisation of each channel; None: that of the training images.
    """
    arguments: Json = {"backbone": backbone, "num_classes": len(info.classes)}
    return arguments | {"mean": list(mean or info.mean), "std": list(std or info.std)}


def read_teacher(arguments: Json, weights: Path, image_size: tuple[int, int]) -> Classifier:
    """Return the teacher with the weights in the file ``weights``, saved by this pipeline or for the bare network.

    Raises:
        UserError: the backbone is unknown or cannot take ``image_size``, or the file is unreadable or does not fit.
    """
    teacher = _build(arguments, image_size)
    state = read_weights(weights)
    bare = not all(name.startswith(INNER) for name in state)
    load_state(teacher, {f"{INNER}{name}": value for name, value in state.items()} if bare else state, weights)
    return teacher.eval()


def obtain_teacher(
    arguments: Json,
    weights: str | None,
    read_split: Callable[[str], Split],
    *,
    image_size: tuple[int, int],
    label_smoothing: float,
    seed: int,
    device: torch.device,
    on_epoch: Callable[[list[Row]], None],
    **settings: Any,
) -> Classifier:
    """Return the teacher on ``device`` in eval mode: read from the file ``weights``, or trained where that is None.

    ``read_split`` returns a split by name; ``settings`` go to ``pipeline.training.train``.

    Raises:
        UserError: the backbone is unknown or cannot take ``image_size``, or the weights are unreadable or do not fit.
        GateError: training diverged.
    """
    if weights is not None:
        return read_teacher(arguments, Path(weights), image_size).to(device)
    teacher = _build(arguments, image_size)
    objective = Supervised(teacher, label_smoothing=label_smoothing)
    splits = read_split("train"), read_split("calib")
    stream = derive_seed(seed, "train_teacher")
    train(objective, *splits, seed=stream, device=device, on_epoch=on_epoch, **settings)
    return teacher.eval()


def _build(arguments: Json, image_size: tuple[int, int]) -> Classifier:
    with blamed_on("train_teacher.backbone"):
        teacher = build_classifier(**arguments)
        check_image_size(teacher, image_size)
    return teacher
