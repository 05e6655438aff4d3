"""The teacher: trained here, or read from a file of weights."""

from pathlib import Path

import torch
from torch import nn

from models.classifier import Classifier
from models.factory import check_image_size
from pipeline.core.errors import user_error
from pipeline.data.dataset import DataInfo
from pipeline.networks.programs import find_program
from pipeline.networks.spec import NetworkSpec
from pipeline.networks.torchvision_weights import fetch_weights, find_weights, is_published, published_statistics
from pipeline.networks.weights import load_state, read_weights
from pipeline.tasks.data import TaskData
from pipeline.tasks.training import TaskTraining
from pipeline.training.program_teacher import GivenTeacher, read_program
from pipeline.training.teacher_settings import TrainTeacher


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


def given_teacher(settings: TrainTeacher, data: TaskData, device: torch.device) -> GivenTeacher:
    """Return the teacher of ``settings`` that is not trained here, on ``device``.

    Raises:
        UserError: see ``read_teacher`` and ``read_program``.
    """
    program = find_program(settings.backbone)
    if program is not None:
        return read_program(program, settings, data, device)
    assert settings.weights is not None
    spec = teacher_spec(settings, data.info, data.training)
    teacher = read_teacher(data.training, spec, settings.weights, data.info.image_size)
    return GivenTeacher(teacher.to(device), spec)


def read_teacher(task: TaskTraining, spec: NetworkSpec, weights: str, image_size: tuple[int, int]) -> nn.Module:
    """Return the teacher with the given ``weights``: a file's, or torchvision's own (``torchvision:NAME``).

    A file's names may be this pipeline's, or those of the published networks; see ``Classifier.own_names``.

    Raises:
        UserError: the backbone is unknown or cannot take ``image_size``, or the weights are not there or do not fit.
    """
    teacher = build_teacher(task, spec, image_size)
    assert isinstance(teacher, Classifier)
    if is_published(weights):
        state = fetch_weights(find_weights(spec.arguments["backbone"], weights))
    else:
        state = read_weights(Path(weights))
    names = teacher.own_names(state)
    load_state(teacher, {names[name]: value for name, value in state.items()}, weights)
    return teacher.eval()
