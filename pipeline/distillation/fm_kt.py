"""FM-KT: the student takes sampling steps towards the teacher, at its outputs or at feature maps on the way."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from models.students import FlowStudent, RefinedStudent
from pipeline.data.dataset import DataInfo
from pipeline.distillation.criteria import FEATURES_AND_LOGITS
from pipeline.distillation.feature_objectives import FeatureFlowMatching
from pipeline.distillation.logit_objectives import FlowMatching
from pipeline.distillation.method import (
    Method,
    Networks,
    flow_spec,
    step_sampler_of,
    teacher_loss_of,
)
from pipeline.networks.spec import NetworkSpec
from pipeline.tasks.training import Supervision, TaskTraining
from pipeline.training.objective import Objective

if TYPE_CHECKING:
    from pipeline.distillation.settings import DistillStudent


class FlowMatchingTransfer(Method):
    """The method ``fm_kt``."""

    def student(self, settings: DistillStudent, info: DataInfo, task: TaskTraining) -> NetworkSpec:
        """Return how a student is made: with a flow at its end, one at each paired feature map, or both."""
        return flow_spec(super().student(settings, info, task), settings, info, task)

    def objective(self, settings: DistillStudent, networks: Networks, supervision: Supervision) -> Objective:
        """Return FM-KT's objective for what is transferred."""
        by_flow = settings.transfer == FEATURES_AND_LOGITS
        loss = teacher_loss_of(settings, networks.teacher, pair_ratio=settings.flow.pair_ratio, logits_by_flow=by_flow)
        steps, student = step_sampler_of(settings), networks.student
        if isinstance(student, FlowStudent):
            return FlowMatching(student, loss, steps=steps, weight=settings.loss_weight, supervision=supervision)
        assert isinstance(student, RefinedStudent)
        assert isinstance(networks.adapter, nn.ModuleList)
        return FeatureFlowMatching(
            student,
            networks.adapter,
            loss,
            taught=settings.taught,
            steps=steps,
            weight=settings.loss_weight,
            supervision=supervision,
        )
