"""The teacher: trained here, or read from a file of weights."""

import logging
from pathlib import Path

from torch import nn

from models.factory import check_image_size
from pipeline.core.errors import user_error
from pipeline.data.dataset import DataInfo
from pipeline.networks.spec import NetworkSpec
from pipeline.networks.torchvision_weights import fetch_weights, find_weights, is_published, published_statistics
from pipeline.networks.weights import Weights, load_weights, read_weights
from pipeline.tasks.training import TaskTraining
from pipeline.training.teacher_settings import TrainTeacher

logger = logging.getLogger(__name__)


def teacher_spec(settings: TrainTeacher, info: DataInfo, task: TaskTraining) -> NetworkSpec:
    """Return how a teacher of the data ``info`` is made.

    Where ``settings`` give no normalisation it is that of torchvision's weights where those are used, else that of the
    training images.

    Raises:
        UserError: torchvision has no such weights.
    """
    mean, std = list(info.mean), list(info.std)
    if settings.weights is not None and is_published(settings.weights):
        mean, std = published_statistics(find_weights(settings.backbone, settings.weights))
    return task.plain_network(settings.backbone, info, mean=list(settings.mean or mean), std=list(settings.std or std))


def build_teacher(task: TaskTraining, spec: NetworkSpec, image_size: tuple[int, int]) -> nn.Module:
    """Return the teacher with random weights.

    Raises:
        UserError: the backbone is unknown or cannot take ``image_size``.
    """
    with user_error("train_teacher.backbone"):
        teacher = task.build_plain(spec)
        check_image_size(teacher, image_size)
    return teacher


def read_teacher(
    task: TaskTraining, spec: NetworkSpec, weights: str, image_size: tuple[int, int], *, entry: str | None = None
) -> nn.Module:
    """Return the teacher with the given ``weights``: a file's, or torchvision's own (``torchvision:NAME``).

    Args:
        entry: where the weights stand in their file; None: where they are found and fit.

    Raises:
        UserError: the backbone is unknown or cannot take ``image_size``, or the weights are not there or do not fit.
    """
    teacher = build_teacher(task, spec, image_size)
    if is_published(weights):
        given = Weights(fetch_weights(find_weights(spec.arguments["backbone"], weights)), weights)
    else:
        given = read_weights(Path(weights), entry=entry)
    for line in load_weights(teacher, given):
        logger.info("%s", line)
    return teacher.eval()
