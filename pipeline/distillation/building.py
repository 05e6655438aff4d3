"""All that is built to train a student: its network, what is trained beside it, and the objective."""

from collections.abc import Callable
from typing import NamedTuple

from torch import nn

from models.classifier import Classifier
from pipeline.distillation.method import Networks, build_student
from pipeline.distillation.methods import METHODS
from pipeline.distillation.settings import DistillStudent
from pipeline.networks.saved import build_network
from pipeline.networks.spec import NetworkSpec
from pipeline.tasks.data import TaskData
from pipeline.training.objective import Objective
from pipeline.training.start import Start, find_start, load_start, tune_backbone

SECTION = "distill_student"


class Distillation(NamedTuple):
    """A student and how it is trained."""

    student: nn.Module
    spec: NetworkSpec
    start: Start
    """What the student started from."""
    adapter: nn.Module | None
    """What is trained beside the student and does not deploy; None: nothing is."""
    adapter_spec: NetworkSpec | None
    teacher: Classifier | None
    """None where the method needs none."""
    objective: Objective


def build_distillation(
    settings: DistillStudent, data: TaskData, open_teacher: Callable[[], Classifier]
) -> Distillation:
    """Return the student of ``settings``, with the weights that it starts from, and what trains it.

    Args:
        open_teacher: returns the teacher, on the device. It is called where the method needs one, after the student has
            been built, whose first weights therefore do not depend on the teacher.

    Raises:
        UserError: the backbone is unknown, lacks a stage, or cannot take the images; given weights cannot be had or do
            not fit; or a teacher is needed.
    """
    method, task, info = METHODS[settings.method].load(), data.training, data.info
    start = find_start(settings, info, section=SECTION)
    spec = method.student(settings, start.info, task)
    student = build_student(spec, info.image_size)
    load_start(student, start, settings, section=SECTION)
    teacher = open_teacher() if settings.needs_teacher else None
    adapter_spec = method.adapter(settings, info, task, student, teacher)
    adapter = build_network(adapter_spec) if adapter_spec else None
    supervision = task.supervision(info, **settings.training.supervision_settings())
    objective = method.objective(settings, Networks(student, adapter, teacher), supervision)
    tune_backbone(objective, spec, start, settings.training.fine_tuning, task)
    return Distillation(student, spec, start, adapter, adapter_spec, teacher, objective)
