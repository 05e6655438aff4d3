"""Networks as they would be for images that have not been read yet."""

from torch import nn

from pipeline.data.dataset import DataInfo
from pipeline.data.sources.table import SOURCES
from pipeline.distillation.method import build_student
from pipeline.distillation.methods import METHODS
from pipeline.distillation.pairs import with_pairs
from pipeline.params.schema import Params
from pipeline.preflight.network_checks import known_size
from pipeline.tasks.table import TASKS
from pipeline.tasks.training import NetworkChoice, TaskTraining

FEW = 2
"""Classes, where their number changes nothing that is checked."""
USUAL_SIZE = 32
"""Pixels of height and width, where nothing says them."""
STATISTICS = (0.5, 0.5, 0.5)


def assumed_data(params: Params, *, count: int = FEW) -> tuple[TaskTraining, DataInfo]:
    """Return the task of the data that ``params`` name, and what such data of ``count`` classes would say of them."""
    task = SOURCES[params.prepare_data.source].task
    size = known_size(params) or (USUAL_SIZE, USUAL_SIZE)
    names = tuple(map(str, range(count)))
    info = DataInfo(task, names, size, STATISTICS, STATISTICS, "none", "packed")
    return TASKS[task].load().training(), info


def assumed_student(params: Params, *, count: int = FEW) -> nn.Module:
    """Return the student as its method trains it, with random weights, for images of ``count`` classes.

    Raises:
        UserError: it cannot be built.
    """
    task, info = assumed_data(params, count=count)
    chosen = with_pairs(params.distill_student, info, task)
    return build_student(METHODS[chosen.method].load().student(chosen, info, task), info.image_size)


def assumed_network(params: Params, settings: NetworkChoice, *, with_feature_map: bool = False) -> nn.Module:
    """Return the plain network of ``settings`` with random weights, for images of the size that ``params`` say, if any.

    Raises:
        ValueError: it cannot be built, or has no feature map where it must.
    """
    task, info = assumed_data(params)
    spec = task.plain_network(settings, info, mean=[*STATISTICS], std=[*STATISTICS])
    spec = task.with_feature_map(spec) if with_feature_map else spec
    return task.build_plain(spec if known_size(params) else task.of_any_size(spec))
