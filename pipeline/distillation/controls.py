"""The controls: students that learn without a flow."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from pipeline.data.dataset import DataInfo
from pipeline.distillation.feature_objectives import FeatureDistillation
from pipeline.distillation.logit_objectives import LogitDistillation
from pipeline.distillation.method import Method, Networks, flow_spec, require_kind, teacher_loss_of
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

    def student(self, settings: DistillStudent, info: DataInfo, task: TaskTraining) -> NetworkSpec:
        """Return how a plain network is made; where features are transferred one that shows them."""
        plain = super().student(settings, info, task)
        return task.with_feature_map(plain) if settings.transfers_features else plain

    def objective(self, settings: DistillStudent, networks: Networks, supervision: Supervision) -> Objective:
        """Return classical distillation of the outputs, or of feature maps."""
        loss = teacher_loss_of(settings, networks.teacher)
        if not settings.transfers_features:
            return LogitDistillation(networks.student, loss, weight=settings.loss_weight, supervision=supervision)
        assert isinstance(networks.adapter, nn.ModuleList)
        return FeatureDistillation(
            networks.student,
            networks.adapter,
            loss,
            stages=[pair[0] for pair in settings.pairs],
            taught=settings.taught,
            weight=settings.loss_weight,
            supervision=supervision,
        )


class CriterionWithMetaEncoder(CriterionAlone):
    """The method ``metric_meta``."""

    def student(self, settings: DistillStudent, info: DataInfo, task: TaskTraining) -> NetworkSpec:
        """Return how a plain network with meta-encoders as layers is made, as many and as wide as in ``fm_kt``.

        Raises:
            UserError: the task has no such network for what is transferred.
        """
        kinds, layers = task.kinds, settings.flow.meta_encoder
        plain = super().student(settings, info, task)
        flows = flow_spec(plain, settings, info, task)
        kind = require_kind(kinds.feature_layers if settings.transfers_features else kinds.layers, settings)
        chosen = {name: flows.arguments[name] for name in ("stages", "width", "widths") if name in flows.arguments}
        heads = {} if settings.transfers_features else {"num_heads": settings.layers.num_heads}
        own = {"layers": layers, "bias": settings.layers.bias}
        return NetworkSpec(kind, plain.arguments | own | heads | chosen)
