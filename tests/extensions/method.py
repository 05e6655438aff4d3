"""A method: the criterion alone, with twice its weight."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.distillation.logit_objectives import LogitDistillation
from pipeline.distillation.method import Method, Networks, teacher_loss_of

if TYPE_CHECKING:
    from pipeline.distillation.settings import DistillStudent
    from pipeline.tasks.training import Supervision
    from pipeline.training.objective import Objective


class TwofoldCriterion(Method):
    """The method ``twofold``."""

    def objective(self, settings: DistillStudent, networks: Networks, supervision: Supervision) -> Objective:
        """Return classical distillation of the outputs."""
        loss = teacher_loss_of(settings, networks.teacher)
        return LogitDistillation(networks.student, loss, weight=2 * settings.loss_weight, supervision=supervision)
