"""OFM-KT: the flow learns from the mean of its own steps, without a teacher."""

from __future__ import annotations

from typing import TYPE_CHECKING

from models.students import FlowStudent
from pipeline.data.dataset import DataInfo
from pipeline.distillation.logit_objectives import OnlineFlowMatching
from pipeline.distillation.method import Method, Networks, criterion_of, flow_spec, step_sampler_of
from pipeline.networks.spec import NetworkSpec
from pipeline.tasks.training import Supervision, TaskTraining
from pipeline.training.objective import Objective

if TYPE_CHECKING:
    from pipeline.distillation.settings import DistillStudent


class OnlineTransfer(Method):
    """The method ``ofm_kt``."""

    def student(self, settings: DistillStudent, info: DataInfo, task: TaskTraining) -> NetworkSpec:
        """Return how a student with a flow at its end is made."""
        return flow_spec(super().student(settings, info, task), settings, info, task)

    def objective(self, settings: DistillStudent, networks: Networks, supervision: Supervision) -> Objective:
        """Return the loss of each step against the mean of all."""
        assert isinstance(networks.student, FlowStudent)
        return OnlineFlowMatching(
            networks.student,
            criterion_of(settings),
            steps=step_sampler_of(settings),
            weight=settings.loss_weight,
            supervision=supervision,
        )
