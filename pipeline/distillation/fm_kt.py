"""FM-KT: the student takes sampling steps towards the teacher, at its outputs or at feature maps on the way."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from models.students import FeatureFlowStudent, FlowStudent
from pipeline.data.dataset import DataInfo
from pipeline.distillation.criteria import FEATURES, LOGITS
from pipeline.distillation.feature_objectives import FeatureFlowMatching
from pipeline.distillation.logit_objectives import FlowMatching
from pipeline.distillation.method import (
    Method,
    Networks,
    TracedFlows,
    step_sampler_of,
    teacher_loss_of,
    with_flow,
)
from pipeline.networks.spec import NetworkSpec
from pipeline.tasks.training import Supervision, TaskTraining
from pipeline.training.objective import Objective

if TYPE_CHECKING:
    from pipeline.distillation.settings import DistillStudent


class FlowMatchingTransfer(Method):
    """The method ``fm_kt``."""

    def student(self, settings: DistillStudent, info: DataInfo, task: TaskTraining) -> NetworkSpec:
        """Return how a student with a flow at its end, or with one at each paired stage, is made."""
        arguments = super().student(settings, info, task).arguments
        if settings.transfer != FEATURES:
            return with_flow(NetworkSpec("flow_student", arguments), settings, info)
        stages = [pair[0] for pair in settings.feature_pairs]
        return with_flow(NetworkSpec("feature_flow_student", arguments | {"stages": stages}), settings, info)

    def objective(self, settings: DistillStudent, networks: Networks, supervision: Supervision) -> Objective:
        """Return FM-KT's objective for what is transferred."""
        loss = teacher_loss_of(settings, networks.teacher, pair_ratio=settings.flow.pair_ratio)
        steps, student = step_sampler_of(settings), networks.student
        if isinstance(student, FlowStudent):
            return FlowMatching(student, loss, steps=steps, weight=settings.loss_weight, supervision=supervision)
        assert isinstance(student, FeatureFlowStudent)
        assert isinstance(networks.adapter, nn.ModuleList)
        return FeatureFlowMatching(
            student, networks.adapter, loss, steps=steps, weight=settings.loss_weight, supervision=supervision
        )

    def traced_flows(self, student: nn.Module, adapter: nn.Module | None) -> TracedFlows | None:
        """Return the flow at the end, or those at the stages with the adapter's transforms."""
        if isinstance(student, FlowStudent):
            return traced_end(student)
        assert isinstance(student, FeatureFlowStudent)
        assert isinstance(adapter, nn.ModuleList)
        return TracedFlows(student, list(adapter), [f"stage {stage}" for stage in student.flows])


def traced_end(student: FlowStudent) -> TracedFlows:
    """Return the flow at the end of ``student``."""
    return TracedFlows(student, [student.flow.transform], [LOGITS])
