"""The size of the student beside its teacher, before the images are known."""

from collections.abc import Iterator
from typing import NamedTuple

from models.factory import count_parameters
from pipeline.core.errors import UserError
from pipeline.distillation.building import check_smaller
from pipeline.params.schema import Params
from pipeline.preflight.assumed_networks import assumed_data, assumed_student
from pipeline.preflight.network_checks import known_size

CLASSES = (2, 1000)
"""Few and many: the sizes of student and teacher both grow by as much with each class, so that what is right for both
numbers is right between them."""


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
        if known_size(params) is None:
            return
        raise
    smallest = min(pairs, key=lambda pair: pair.student - pair.teacher)
    check_smaller(*smallest)


def _pairs(params: Params) -> Iterator[Pair]:
    """Yield the sizes of networks with random weights, with few classes and with many."""
    for count in CLASSES:
        task, info = assumed_data(params, count=count)
        small = assumed_student(params, count=count)
        large = task.build_plain(task.plain_network(params.train_teacher, info, mean=[*info.mean], std=[*info.std]))
        yield Pair(count_parameters(small), count_parameters(large))
