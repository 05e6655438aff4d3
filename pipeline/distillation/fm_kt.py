"""FM-KT: the student takes sampling steps towards the teacher, at its outputs or at feature maps on the way."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from models.layers.shape_transform import FeatureTransform
from models.students import FlowStudent, RefinedStudent
from pipeline.data.dataset import DataInfo
from pipeline.distillation.criteria import LOGITS
from pipeline.distillation.feature_objectives import FeatureFlowMatching
from pipeline.distillation.logit_objectives import FlowMatching
from pipeline.distillation.method import (
    Method,
    Networks,
    TracedFlows,
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
        """Return how a student with a flow at its end, or with one at each paired feature map, is made."""
        return flow_spec(super().student(settings, info, task), settings, info, task)

    def objective(self, settings: DistillStudent, networks: Networks, supervision: Supervision) -> Objective:
        """Return FM-KT's objective for what is transferred."""
        loss = teacher_loss_of(settings, networks.teacher, pair_ratio=settings.flow.pair_ratio)
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

    def traced_flows(self, student: nn.Module, adapter: nn.Module | None) -> TracedFlows | None:
        """Return the flow at the end, or those at feature maps with the adapter's transforms."""
        if isinstance(student, FlowStudent):
            return traced_end(student)
        assert isinstance(student, RefinedStudent)
        assert isinstance(adapter, nn.ModuleList)
        transforms = [transform if isinstance(transform, FeatureTransform) else None for transform in adapter]
        return TracedFlows(student, transforms, [f"{student.map_name} {number}" for number in student.stages])


def traced_end(student: FlowStudent) -> TracedFlows:
    """Return the flow at the end of ``student``."""
    return TracedFlows(student, [student.flow.transform], [LOGITS])
