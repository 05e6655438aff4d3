"""All that is built to train a student: its network, what is trained beside it, and the objective."""

import logging
from collections.abc import Callable, Iterator
from typing import NamedTuple

from torch import nn

from models.flow import FlowTransfer
from models.students import SampledStudent
from pipeline.core.distributed import is_main
from pipeline.core.errors import UserError
from pipeline.distillation.flow_width import describe_widths, flow_cost
from pipeline.distillation.method import Networks, build_student, teacher_stages
from pipeline.distillation.methods import METHODS
from pipeline.distillation.pairs import plain_student, require_alike, with_pairs
from pipeline.distillation.settings import DistillStudent
from pipeline.networks.complexity import num_parameters
from pipeline.networks.saved import build_network
from pipeline.networks.spec import NetworkSpec
from pipeline.tasks.data import TaskData
from pipeline.training.objective import AveragedApart, Objective
from pipeline.training.start import Start, find_start, load_start, tune_backbone

SECTION = "distill_student"

logger = logging.getLogger(__name__)


class Distillation(NamedTuple):
    """A student and how it is trained."""

    student: nn.Module
    spec: NetworkSpec
    start: Start
    """What the student started from."""
    adapter: nn.Module | None
    """What is trained beside the student and does not deploy; None: nothing is."""
    adapter_spec: NetworkSpec | None
    teacher: nn.Module | None
    """None where the method needs none."""
    objective: Objective
    teacher_stages: list[int] | None
    """What it learns of the teacher; see ``pipeline.distillation.method.teacher_stages``."""
    doubts: list[str]
    """What of the student is allowed, but hardly meant."""


def build_distillation(settings: DistillStudent, data: TaskData, open_teacher: Callable[[], nn.Module]) -> Distillation:
    """Return the student of ``settings``, with the weights that it starts from, and what trains it.

    Args:
        open_teacher: returns the teacher, on the device. It is called where the method needs one, after the student has
            been built, whose first weights therefore do not depend on the teacher.

    Raises:
        UserError: the backbone is unknown, lacks a stage, or cannot take the images; given weights cannot be had or do
            not fit; a teacher is needed; or the student is larger than the teacher.
    """
    method, task, info = METHODS[settings.method].load(), data.training, data.info
    one_to_one = settings.transfers_features and settings.feature_pairs is None
    settings = with_pairs(settings, info, task)
    start = find_start(settings, info, section=SECTION, whole=task.published_names(settings))
    spec = method.student(settings, start.info, task)
    student = build_student(spec, info.image_size)
    loaded = load_start(student, start, settings, section=SECTION, task=task)
    doubts = [*_doubts(settings, student, info.image_size)]
    teacher = open_teacher() if settings.needs_teacher else None
    if teacher is not None and not settings.allow_larger:
        check_smaller(num_parameters(student), num_parameters(teacher))
    if teacher is not None and one_to_one:
        require_alike(plain_student(settings, info, task), teacher, info)
    adapter_spec = method.adapter(settings, info, task, student, teacher)
    adapter = build_network(adapter_spec) if adapter_spec else None
    supervision = task.supervision(info, **settings.training.supervision_settings())
    objective = method.objective(settings, Networks(student, adapter, teacher), supervision)
    tune_backbone(objective, spec, build_network, start, loaded, settings.training.fine_tuning, task)
    if settings.flow.ema_decay is not None:
        flows = [module for module in objective.network.modules() if isinstance(module, FlowTransfer)]
        objective.averaged_apart = AveragedApart(flows, settings.flow.ema_decay) if flows else None
    taken = teacher_stages(settings)
    return Distillation(student, spec, start, adapter, adapter_spec, teacher, objective, taken, doubts)


def check_smaller(student: int, teacher: int) -> None:
    """Raise UserError where the ``student`` has more parameters than the ``teacher``, whose 0 means not known."""
    if 0 < teacher < student:
        raise UserError(
            f"distill_student.backbone: the student has {student:,} parameters, more than the {teacher:,} of its "
            "teacher; choose a smaller backbone, a smaller distill_student.flow.width or a larger "
            "train_teacher.backbone, or allow it with distill_student.allow_larger: true"
        )


def _doubts(settings: DistillStudent, student: nn.Module, image_size: tuple[int, int]) -> Iterator[str]:
    """Log how wide the flows of ``student`` are and what they cost; yield a line where that is a lot."""
    if not isinstance(student, SampledStudent):
        return
    cost = flow_cost(student, image_size)
    student.train()
    if is_main():
        name, widths = settings.flow.meta_encoder, describe_widths(student)
        logger.info("meta-encoder %s: %s, %s", name, widths, cost)
    if cost.doubt:
        yield cost.doubt
