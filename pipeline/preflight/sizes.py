"""The size of the student beside its teacher, before the images are known."""

import functools
from collections.abc import Iterator
from typing import NamedTuple

from models.factory import count_parameters
from pipeline.core.errors import UserError
from pipeline.data.dataset import DataInfo
from pipeline.data.sources.table import SOURCES
from pipeline.distillation.building import check_smaller
from pipeline.distillation.method import build_student
from pipeline.distillation.methods import METHODS
from pipeline.distillation.settings import DistillStudent
from pipeline.params.schema import Params
from pipeline.tasks.table import TASKS

CLASSES = (2, 1000)
"""Few and many: the sizes of student and teacher both grow by as much with each class, so that what is right for both
numbers is right between them."""
IMAGE_SIZE = 32
"""Where the parameters do not say it."""


class Pair(NamedTuple):
    """Two numbers of parameters."""

    student: int
    teacher: int


def check_student_is_smaller(params: Params) -> None:
    """Raise UserError where the student has more parameters than its teacher with few classes as with many.

    How many there are, and how large the images, is only known when they have been read; ``distill_student`` looks
    again. What cannot be built for images of a size that the parameters do not say is left to it too.
    """
    try:
        pairs = [*_pairs(params)]
    except UserError:
        if params.prepare_data.image_size is None:
            return
        raise
    smallest = min(pairs, key=lambda pair: pair.student - pair.teacher)
    check_smaller(*smallest)


def _pairs(params: Params) -> Iterator[Pair]:
    source, teacher = SOURCES[params.prepare_data.source], params.train_teacher.backbone
    size = params.prepare_data.image_size or IMAGE_SIZE
    for number in CLASSES:
        yield _sizes(params.distill_student, teacher, source.task, size, number)


@functools.lru_cache(maxsize=64)
def _sizes(settings: DistillStudent, teacher: str, task_name: str, image_size: int, num_classes: int) -> Pair:
    """Return the sizes of networks with random weights."""
    statistics = (0.5, 0.5, 0.5)
    names = tuple(map(str, range(num_classes)))
    info = DataInfo(task_name, names, (image_size, image_size), statistics, statistics, "none", "packed")
    task = TASKS[task_name].load().training()
    student = build_student(METHODS[settings.method].load().student(settings, info, task), info.image_size)
    plain = task.build_plain(task.plain_network(teacher, info, mean=[*statistics], std=[*statistics]))
    return Pair(count_parameters(student), count_parameters(plain))
