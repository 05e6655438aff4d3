"""The controls: students that learn without a flow."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from models.classifier import Classifier
from pipeline.data.dataset import DataInfo
from pipeline.distillation.criteria import FEATURES
from pipeline.distillation.feature_objectives import FeatureDistillation
from pipeline.distillation.logit_objectives import LogitDistillation
from pipeline.distillation.method import Method, Networks, teacher_loss_of, with_flow
from pipeline.networks.spec import NetworkSpec
from pipeline.tasks.training import Supervision, TaskTraining
from pipeline.training.objective import Objective, Supervised

if TYPE_CHECKING:
    from pipeline.distillation.settings import DistillStudent


class LabelsAlone(Method):
    """The method ``none``."""

    def adapter(
        self,
        settings: DistillStudent,  # noqa: ARG002  (signature of Method)
        info: DataInfo,  # noqa: ARG002
        task: TaskTraining,  # noqa: ARG002
        student: nn.Module,  # noqa: ARG002
        teacher: nn.Module | None,  # noqa: ARG002
    ) -> NetworkSpec | None:
        """Return None: whatever is set to be transferred, nothing is."""
        return None

    def objective(
        self,
        settings: DistillStudent,  # noqa: ARG002
        networks: Networks,
        supervision: Supervision,
    ) -> Objective:
        """Return the supervised loss."""
        return Supervised(networks.student, supervision=supervision)


class CriterionAlone(Method):
    """The method ``metric``."""

    def objective(self, settings: DistillStudent, networks: Networks, supervision: Supervision) -> Objective:
        """Return classical distillation of the outputs, or of feature maps."""
        loss = teacher_loss_of(settings, networks.teacher)
        student = networks.student
        assert isinstance(student, Classifier)
        if settings.transfer != FEATURES:
            return LogitDistillation(student, loss, weight=settings.loss_weight, supervision=supervision)
        assert isinstance(networks.adapter, nn.ModuleList)
        stages = [pair[0] for pair in settings.feature_pairs]
        return FeatureDistillation(
            student, networks.adapter, loss, stages=stages, weight=settings.loss_weight, supervision=supervision
        )


class CriterionWithMetaEncoder(CriterionAlone):
    """The method ``metric_meta``."""

    def student(self, settings: DistillStudent, info: DataInfo, task: TaskTraining) -> NetworkSpec:
        """Return how a plain network with the meta-encoder as ordinary layers, as wide as in ``fm_kt``, is made."""
        arguments = super().student(settings, info, task).arguments
        width = with_flow(NetworkSpec("flow_student", arguments), settings, info).arguments["width"]
        return NetworkSpec("layered_classifier", arguments | {"layers": settings.flow.meta_encoder, "width": width})
