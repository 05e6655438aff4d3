"""Objectives that transfer logits: FM-KT, FM-KT^Theta, OFM-KT, and classical distillation as their control."""

from torch import Tensor

from models.classifier import Classifier
from models.flow import FlowTransfer
from models.students import FlowStudent
from pipeline.data.batch import Batch
from pipeline.distillation.criterion import Criterion
from pipeline.distillation.step_sampler import StepSampler
from pipeline.distillation.teacher_loss import TeacherLoss
from pipeline.distillation.transfer import SampledTransferObjective, TransferObjective
from pipeline.tasks.training import Predicted, Supervision
from pipeline.training.objective import Loss, Objective


class LogitDistillation(TransferObjective):
    """Classical distillation, the control ``metric``: CE + w L(student, teacher)."""

    def forward(self, batch: Batch) -> Loss:
        """Return CE + w L."""
        logits = self.student(batch.images)
        cross_entropy = self.supervision.loss(logits, batch)
        transfer = self.teacher_loss([logits], batch)
        total = cross_entropy + self.weight * transfer
        return Loss(total, {self.supervision.loss_name: cross_entropy, "transfer": transfer}, logits)


class FlowMatching(SampledTransferObjective):
    """Logit-based FM-KT with serial training: w / N sum_i [L(T(X_T_hat_i), X_T) + CE(T(X_T_hat_i), y)].

    The chain starts at the student's feature and never sees the teacher (arXiv 2402.02012, section 3).
    """

    student: FlowStudent

    def forward(self, batch: Batch) -> Loss:
        """Return the weighted mean over the steps of L + CE."""
        outputs = self.student.step_logits(batch.images, self.steps.draw())
        transfer = self.teacher_loss([outputs], batch)
        cross_entropy = self.supervision.loss(outputs, batch)
        total = self.weight * (transfer + cross_entropy)
        parts = {self.supervision.loss_name: cross_entropy, "transfer": transfer}
        return Loss(total, parts, outputs.mean(dim=0))


class ThetaFlowMatching(TransferObjective):
    """FM-KT^Theta: a plain student whose head learns from a flow on its features; the flow is not deployed.

    FM-KT's loss, plus w_theta [L(Theta(X_S), stopgrad(mean_i T(X_T_hat_i))) + CE(Theta(X_S), y)].

    Args:
        flow: from the student's last feature map to logits; the adapter.
        theta_weight: w_theta.
        theta_reaches_backbone: whether the head's gradient goes on into the backbone.
    """

    student: Classifier

    def __init__(
        self,
        student: Classifier,
        flow: FlowTransfer,
        teacher_loss: TeacherLoss,
        *,
        steps: StepSampler,
        weight: float,
        theta_weight: float,
        theta_reaches_backbone: bool,
        supervision: Supervision,
    ) -> None:
        super().__init__(
            student, teacher_loss, weight=weight, supervision=supervision, adapter=flow, follows_epoch=[steps]
        )
        self.flow = flow
        self.steps = steps
        self.theta_weight = theta_weight
        self.theta_reaches_backbone = theta_reaches_backbone

    def forward(self, batch: Batch) -> Loss:
        """Return the costs of flow and head."""
        features = self.student.features(batch.images)
        outputs = self.flow.step_outputs(features, self.steps.draw())
        logits = self.student.head(features if self.theta_reaches_backbone else features.detach())
        averaged = outputs.mean(dim=0).detach()
        supervised = self.supervision.loss_name
        parts = {
            supervised: self.supervision.loss(logits, batch),
            "transfer": self.teacher_loss.criterion(logits, averaged, batch.targets),
            f"flow_{supervised}": self.supervision.loss(outputs, batch),
            "flow_transfer": self.teacher_loss([outputs], batch),
        }
        flow = self.weight * (parts["flow_transfer"] + parts[f"flow_{supervised}"])
        head = self.theta_weight * (parts["transfer"] + parts[supervised])
        return Loss(flow + head, parts, logits)


class OnlineFlowMatching(Objective):
    """OFM-KT, without a teacher: w / N sum_i [CE(o_i, y) + L(o_i, stopgrad(mean_j o_j))], o_i = T(X_T_hat_i)."""

    student: FlowStudent

    def __init__(
        self,
        student: FlowStudent,
        criterion: Criterion,
        *,
        steps: StepSampler,
        weight: float,
        supervision: Supervision,
    ) -> None:
        super().__init__(student, supervision=supervision, follows_epoch=[criterion, steps])
        self.criterion = criterion
        self.steps = steps
        self.weight = weight

    def forward(self, batch: Batch) -> Loss:
        """Return the weighted mean over the steps of CE + L to the mean of all steps."""
        outputs = self.student.step_logits(batch.images, self.steps.draw())
        averaged = outputs.mean(dim=0)
        transfer = self.criterion(outputs, averaged.detach(), batch.targets)
        cross_entropy = self.supervision.loss(outputs, batch)
        total = self.weight * (transfer + cross_entropy)
        return Loss(total, {self.supervision.loss_name: cross_entropy, "transfer": transfer}, averaged)

    def predict(self, images: Tensor) -> Predicted:
        """Return the student's outputs with the largest number of steps of training."""
        return self.student(images, self.steps.largest)
