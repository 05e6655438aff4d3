"""The teacher: trained here, from random or given weights, or taken as it is given."""

from typing import NamedTuple

from torch import nn

from models.factory import check_image_size
from pipeline.core.errors import user_error
from pipeline.data.dataset import DataInfo
from pipeline.networks.spec import NetworkSpec
from pipeline.tasks.training import Supervision, TaskTraining
from pipeline.training.objective import Objective, Supervised
from pipeline.training.start import Start, find_start, load_start, tune_backbone
from pipeline.training.teacher_settings import TrainTeacher

SECTION = "train_teacher"


class Teacher(NamedTuple):
    """A teacher and how it is made."""

    network: nn.Module
    spec: NetworkSpec
    start: Start

    def objective(self, settings: TrainTeacher, task: TaskTraining, supervision: Supervision) -> Objective:
        """Return what trains it."""
        objective = Supervised(self.network, supervision=supervision)
        tune_backbone(objective, self.spec, self.start, settings.training.fine_tuning, task)
        return objective


def find_teacher(settings: TrainTeacher, info: DataInfo, task: TaskTraining) -> Teacher:
    """Return the teacher of ``settings`` for the data ``info``, still with random weights.

    Raises:
        UserError: the backbone is unknown or cannot take the images, or there are no such weights.
    """
    start = find_start(settings, info, section=SECTION)
    spec = task.plain_network(settings.backbone, info, mean=[*start.info.mean], std=[*start.info.std])
    with user_error(f"{SECTION}.backbone"):
        network = task.build_plain(spec)
        check_image_size(network, info.image_size)
    return Teacher(network, spec, start)


def build_teacher(settings: TrainTeacher, info: DataInfo, task: TaskTraining) -> Teacher:
    """Return the teacher with the weights that it starts from.

    A file's names may be this pipeline's, or those of the published networks.

    Raises:
        UserError: as ``find_teacher``; or the weights cannot be had or do not fit.
    """
    teacher = find_teacher(settings, info, task)
    load_start(teacher.network, teacher.start, settings, section=SECTION)
    return teacher
