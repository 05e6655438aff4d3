"""The teacher: trained here, or read from a file of weights."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from models.classifier import Classifier
from models.factory import build_classifier, check_image_size
from pipeline.core.errors import user_error
from pipeline.core.files import Json
from pipeline.data.dataset import DataInfo
from pipeline.networks.torchvision_weights import fetch_weights, find_weights, is_published, published_statistics
from pipeline.networks.weights import load_state, read_weights
from pipeline.training.objective import Supervised
from pipeline.training.run import TrainingRun


def teacher_arguments(
    backbone: str,
    info: DataInfo,
    *,
    weights: str | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Json:
    """Return the arguments of ``models.factory.build_classifier`` for a teacher of the data ``info``.

    ``mean`` and ``std`` are the normalisation of each channel; None: that of torchvision's ``weights`` where those are
    used, else that of the training images.

    Raises:
        UserError: torchvision has no such weights.
    """
    arguments: Json = {"backbone": backbone, "num_classes": len(info.classes)}
    default: tuple[Sequence[float], Sequence[float]] = (info.mean, info.std)
    if weights is not None and is_published(weights):
        default = published_statistics(find_weights(backbone, weights))
    return arguments | {"mean": list(mean or default[0]), "std": list(std or default[1])}


def _new_teacher(arguments: Json, image_size: tuple[int, int]) -> Classifier:
    with user_error("train_teacher.backbone"):
        teacher = build_classifier(**arguments)
        check_image_size(teacher, image_size)
    return teacher


def read_teacher(arguments: Json, weights: str, image_size: tuple[int, int]) -> Classifier:
    """Return the teacher with the given ``weights``: a file's, or torchvision's own (``torchvision:NAME``).

    A file's names may be this pipeline's, or those of the published networks; see ``Classifier.own_names``.

    Raises:
        UserError: the backbone is unknown or cannot take ``image_size``, or the weights are not there or do not fit.
    """
    teacher = _new_teacher(arguments, image_size)
    if is_published(weights):
        state = fetch_weights(find_weights(arguments["backbone"], weights))
    else:
        state = read_weights(Path(weights))
    names = teacher.own_names(state)
    load_state(teacher, {names[name]: value for name, value in state.items()}, weights)
    return teacher.eval()


def obtain_teacher(
    arguments: Json,
    weights: str | None,
    image_size: tuple[int, int],
    run: TrainingRun,
    *,
    label_smoothing: float,
    **training: Any,
) -> Classifier:
    """Return the teacher on the device of ``run``, in eval mode: with the given ``weights``, or trained where None.

    ``training`` goes to ``TrainingRun.train``.

    Raises:
        UserError: the backbone is unknown or cannot take ``image_size``, or the weights are unreadable or do not fit.
        GateError: training diverged.
    """
    if weights is not None:
        return read_teacher(arguments, weights, image_size).to(run.engine.device)
    teacher = _new_teacher(arguments, image_size)
    run.train(Supervised(teacher, label_smoothing=label_smoothing), **training)
    return teacher
