"""The teacher: trained here, from random or given weights, or taken as it is given."""

from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from models.factory import check_image_size
from pipeline.core.errors import user_error
from pipeline.data.dataset import DataInfo
from pipeline.networks.programs import find_program
from pipeline.networks.spec import NetworkSpec
from pipeline.tasks.data import TaskData
from pipeline.tasks.training import Supervision, TaskTraining
from pipeline.training.objective import Objective, Supervised
from pipeline.training.program_teacher import read_program
from pipeline.training.start import Start, backbone_names, find_start, load_start, tune_backbone
from pipeline.training.teacher_classes import known_classes
from pipeline.training.teacher_settings import TrainTeacher

SECTION = "train_teacher"
CHOSEN = ", and train_teacher.classes chooses yours among those that the weights know"


class Teacher(NamedTuple):
    """A teacher and how it is made."""

    network: nn.Module
    spec: NetworkSpec
    start: Start
    loaded: frozenset[str] = frozenset()
    """The names of its tensors that were given."""
    warnings: tuple[str, ...] = ()
    """What was found of it that is hardly meant."""

    def objective(self, settings: TrainTeacher, task: TaskTraining, supervision: Supervision) -> Objective:
        """Return what trains it."""
        objective = Supervised(self.network, supervision=supervision)
        tune_backbone(
            objective, self.spec, task.build_plain, self.start, self.loaded, settings.training.fine_tuning, task
        )
        return objective


def find_teacher(settings: TrainTeacher, info: DataInfo, task: TaskTraining) -> Teacher:
    """Return the teacher of ``settings`` for the data ``info``, still with random weights.

    Raises:
        UserError: the backbone is unknown or cannot take the images, or there are no such weights.
    """
    start = find_start(settings, info, section=SECTION, whole=task.published_names(settings))
    spec = task.plain_network(settings, info, mean=[*start.info.mean], std=[*start.info.std])
    with user_error(f"{SECTION}.backbone"):
        network = task.build_plain(spec)
        check_image_size(network, info.image_size)
    return Teacher(network, spec, start)


def open_teacher(settings: TrainTeacher, data: TaskData, device: torch.device) -> Teacher:
    """Return the teacher of ``settings`` on ``device``: a program as its file has it, a network as it starts.

    Raises:
        UserError: see ``build_teacher`` and ``read_program``.
    """
    program = find_program(settings.backbone)
    if program is None:
        teacher = build_teacher(settings, data.info, data.training)
        return teacher._replace(network=teacher.network.to(device))
    found = read_program(program, settings, data, device)
    return Teacher(found.network, found.spec, Start(data.info, None), warnings=found.warnings)


def build_teacher(settings: TrainTeacher, info: DataInfo, task: TaskTraining) -> Teacher:
    """Return the teacher with the weights that it starts from.

    A file's names may be this pipeline's, or those of the published networks.

    Raises:
        UserError: as ``find_teacher``; or the weights cannot be had or do not fit.
    """
    teacher = find_teacher(settings, info, task)
    if settings.classes is not None:
        return teacher._replace(loaded=_load_named(teacher, settings, info, task))
    start, network = teacher.start, teacher.network
    loaded = load_start(network, start, settings, section=SECTION, task=task, another_way=CHOSEN)
    return teacher._replace(loaded=loaded)


def _load_named(teacher: Teacher, settings: TrainTeacher, info: DataInfo, task: TaskTraining) -> frozenset[str]:
    """Put given weights into ``teacher``, the outputs in the order of the data: the file of classes has theirs.

    Returns the names of the tensors that were given.
    """
    theirs, outputs = known_classes(Path(settings.classes or ""), info)
    whole = find_teacher(settings, theirs, task)
    loaded = load_start(whole.network, whole.start, settings, section=SECTION, task=task, may_replace_head=False)
    backbone = backbone_names(whole.network, whole.spec, task.build_plain, task.output_arguments(theirs))
    layers = whole.network.state_dict().keys() - backbone
    task.take_outputs(teacher.network, whole.network, outputs, theirs, layers=layers)
    return loaded
