"""FM-KT^Theta: a plain head learns beside a flow on its features, which does not deploy unless they share weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from models.classifier import Classifier
from models.factory import require_feature_map
from models.flow import FlowTransfer
from models.students import FlowStudent
from pipeline.core.errors import user_error
from pipeline.data.dataset import DataInfo
from pipeline.distillation.logit_objectives import ThetaFlowMatching
from pipeline.distillation.method import (
    Method,
    Networks,
    flow_arguments,
    flow_spec,
    step_sampler_of,
    teacher_loss_of,
)
from pipeline.networks.spec import NetworkSpec
from pipeline.tasks.training import Supervision, TaskTraining
from pipeline.training.objective import Objective

if TYPE_CHECKING:
    from pipeline.distillation.settings import DistillStudent


class ThetaTransfer(Method):
    """The method ``fm_kt_theta``."""

    def student(self, settings: DistillStudent, info: DataInfo, task: TaskTraining) -> NetworkSpec:
        """Return how a plain network is made whose backbone ends in a feature map; tied, one that ends in the flow."""
        plain = super().student(settings, info, task)
        if settings.theta.tied:
            kind, arguments = flow_spec(plain, settings, info, task)
            return NetworkSpec(kind, arguments | {"tied": True})
        return NetworkSpec(plain.kind, plain.arguments | {"feature_map": True})

    def adapter(
        self,
        settings: DistillStudent,
        info: DataInfo,
        task: TaskTraining,
        student: nn.Module,
        teacher: nn.Module | None,  # noqa: ARG002  (signature of Method)
    ) -> NetworkSpec | None:
        """Return how the flow from the student's last feature map to the task's outputs is made; tied, it is there.

        It does not deploy, so that width ``auto`` is the full one: the student stays as small as it is.

        Raises:
            UserError: the student's backbone has no feature map.
        """
        if isinstance(student, FlowStudent):
            return None
        assert isinstance(student, Classifier)
        with user_error("distill_student.backbone"):
            require_feature_map(settings.backbone, student.backbone)
        arguments = task.output_arguments(info) | flow_arguments(settings)
        width = settings.flow.width if isinstance(settings.flow.width, int) else None
        return NetworkSpec("logit_flow", {"channels": student.backbone.channels, "width": width, **arguments})

    def objective(self, settings: DistillStudent, networks: Networks, supervision: Supervision) -> Objective:
        """Return FM-KT's loss of the flow with the head's own."""
        student, flow = networks.student, networks.adapter
        assert isinstance(student, Classifier | FlowStudent)
        assert flow is None or isinstance(flow, FlowTransfer)
        theta = settings.theta
        return ThetaFlowMatching(
            student,
            flow,
            teacher_loss_of(settings, networks.teacher, pair_ratio=settings.flow.pair_ratio),
            steps=step_sampler_of(settings),
            weight=settings.loss_weight,
            supervision=supervision,
            target=theta.target,
            theta_weight=theta.weight,
            reaches_backbone=theta.reaches_backbone,
            weight_end=theta.flow_weight_end,
            epochs=settings.training.epochs,
        )
