"""What a method is: the networks that it needs, and the objective that trains them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn

from models.factory import check_image_size
from models.step_sampler import StepSampler
from models.students import RefinedStudent, SampledStudent, check_maps
from pipeline.core.errors import UserError, user_error
from pipeline.data.dataset import DataInfo
from pipeline.distillation.criteria import FEATURES
from pipeline.distillation.criterion import Criterion
from pipeline.distillation.flow_width import choose_widths
from pipeline.distillation.frozen_teacher import OUTPUTS, FrozenTeacher, with_stages
from pipeline.distillation.stored_teacher import StoredTeacher
from pipeline.distillation.teacher_loss import LogitTerm, TeacherLoss
from pipeline.networks.saved import build_network
from pipeline.networks.spec import NetworkSpec
from pipeline.tasks.training import Supervision, TaskTraining
from pipeline.training.objective import Objective

if TYPE_CHECKING:
    from pipeline.distillation.settings import DistillStudent


@dataclass(frozen=True)
class Networks:
    """What a method trains with."""

    student: nn.Module
    adapter: nn.Module | None
    """What is trained beside the student and does not deploy; None: nothing is."""
    teacher: nn.Module | None
    """None where the method needs none."""


class Method(ABC):
    """A way of training a student."""

    def student(self, settings: DistillStudent, info: DataInfo, task: TaskTraining) -> NetworkSpec:
        """Return how the student is made; as a plain network, unless the method says otherwise."""
        return task.plain_network(settings, info, mean=list(info.mean), std=list(info.std))

    def adapter(
        self,
        settings: DistillStudent,
        info: DataInfo,
        task: TaskTraining,  # noqa: ARG002  (others need it)
        student: nn.Module,
        teacher: nn.Module | None,
    ) -> NetworkSpec | None:
        """Return how that is made which is trained beside ``student`` and does not deploy; None where nothing is.

        Where features are transferred it is a transform of each pair of stages.

        Raises:
            UserError: the student or the teacher has no stage that is to be paired.
        """
        if not settings.transfers_features or teacher is None:
            return None
        return feature_transforms(settings, info, student, teacher)

    @abstractmethod
    def objective(self, settings: DistillStudent, networks: Networks, supervision: Supervision) -> Objective:
        """Return what trains ``networks``."""


def build_student(spec: NetworkSpec, image_size: tuple[int, int]) -> nn.Module:
    """Return the student with random weights.

    Raises:
        UserError: the backbone is unknown, has no feature map or stage, or cannot take images of ``image_size``.
    """
    with user_error("distill_student.backbone"):
        student = build_network(spec)
        check_image_size(student, image_size, *([1] if isinstance(student, SampledStudent) else []))
    return student


def feature_transforms(settings: DistillStudent, info: DataInfo, student: nn.Module, teacher: nn.Module) -> NetworkSpec:
    """Return how the transforms from the student's feature maps to the teacher's are made.

    Raises:
        UserError: a map is not there, or the teacher shows none.
    """
    pairs, shown = settings.pairs, with_stages(teacher)
    own = (student if isinstance(student, RefinedStudent) else with_stages(student)).map_widths
    with user_error("distill_student.feature_pairs"):
        check_maps(f"backbone {settings.backbone!r}", own, [pair[0] for pair in pairs], name=shown.map_name)
        check_maps("the teacher", shown.map_widths, [pair[1] for pair in pairs], name=shown.map_name)
    device = next(teacher.parameters()).device
    teacher.eval()
    with torch.no_grad():
        maps = shown.feature_maps(torch.zeros(1, 3, *info.image_size, device=device))
    shapes = [[own[i - 1], maps[j - 1].shape[1], list(maps[j - 1].shape[2:])] for i, j in pairs]
    taught = set(settings.taught)
    return NetworkSpec(
        "feature_transforms", {"shapes": [shape if i in taught else None for i, shape in enumerate(shapes)]}
    )


def flow_arguments(settings: DistillStudent) -> dict[str, object]:
    """Return the arguments of ``models.flow.build_flow`` that the settings alone decide."""
    flow = settings.flow
    return {
        "schedule": flow.schedule,
        "meta_encoder": flow.meta_encoder,
        "time_scale": flow.time_scale,
        "predicts": flow.predicts,
        "initial_weights": flow.initial_weights,
    }


def flow_spec(plain: NetworkSpec, settings: DistillStudent, info: DataInfo, task: TaskTraining) -> NetworkSpec:
    """Return how the student with flows is made whose ``plain`` network is given.

    Raises:
        UserError: the task has no flow for what is transferred; or as ``choose_widths``.
    """
    features, logits = settings.transfers_features, settings.transfer != FEATURES
    kind = require_kind(getattr(task.kinds, settings.transfer), settings)
    stages = {"stages": [pair[0] for pair in settings.pairs]} if features else {}
    arguments = plain.arguments | stages | flow_arguments(settings)
    count = len(stages.get("stages", [])) + logits
    widths = choose_widths(NetworkSpec(kind, arguments), info.image_size, settings.flow.width, num_flows=count)
    return NetworkSpec(kind, arguments | ({"widths": widths} if features else {"width": widths[0]}))


def require_kind(kind: str | None, settings: DistillStudent) -> str:
    """Return ``kind``, that of the student of ``settings``; raises UserError where the task has none."""
    if kind is None:
        raise UserError(
            f"distill_student.method: {settings.method!r} with transfer {settings.transfer} has no student for these "
            "images; fmkt params --explain distill_student.method lists all methods"
        )
    return kind


def criterion_of(settings: DistillStudent) -> Criterion:
    """Return the criterion that the settings choose."""
    return Criterion(settings.loss, settings.settings_of(settings.loss))


def step_sampler_of(settings: DistillStudent) -> StepSampler:
    """Return how many steps batches take in training."""
    return StepSampler(settings.flow.num_steps, settings.flow.num_steps_warmup)


def teacher_loss_of(
    settings: DistillStudent, teacher: nn.Module | None, *, pair_ratio: float = 1.0, logits_by_flow: bool = False
) -> TeacherLoss:
    """Return what the student costs against ``teacher``: its outputs, the stages of ``feature_pairs``, or both.

    Args:
        logits_by_flow: whether a flow leads to the logits that are compared beside the stages.

    Raises:
        UserError: there is no teacher.
    """
    if teacher is None:
        raise UserError(
            f"distill_student.method: {settings.method!r} needs a teacher; run train_teacher (dvc repro) first"
        )
    frozen = (
        FrozenTeacher(teacher, teacher_stages(settings) or [])
        if settings.stored_views is None
        else StoredTeacher(teacher, settings.stored_views)
    )
    weights = settings.weights_of_pairs if settings.transfers_features else None
    taught = None if weights is None else [weights[i] for i in settings.taught]
    term = None
    if settings.compares_logits_beside:
        name = settings.logit_loss.criterion
        term = LogitTerm(Criterion(name, settings.settings_of(name)), settings.logit_loss.weight, logits_by_flow)
    return TeacherLoss(frozen, criterion_of(settings), pair_ratio=pair_ratio, weights=taught, logit_term=term)


def teacher_stages(settings: DistillStudent) -> list[int] | None:
    """Return what the student learns of the teacher, to be kept with it.

    None: nothing; empty: the outputs; else the teacher's feature maps that have a loss, counted from 1, and behind
    them, as ``OUTPUTS``, the outputs where their logits are compared as well.
    """
    if not settings.needs_teacher:
        return None
    if not settings.transfers_features:
        return []
    maps = [settings.pairs[i][1] for i in settings.taught]
    return [*maps, OUTPUTS] if settings.compares_logits_beside else maps
