"""Objectives that transfer logits: FM-KT, FM-KT^Theta, OFM-KT, and classical distillation as their control."""

from models.classifier import Classifier
from models.flow import FlowTransfer
from models.students import FlowStudent
from pipeline.data.augmentation import Batch
from pipeline.distillation.criterion import Criterion
from pipeline.distillation.teacher_loss import SteppedObjective, StepSampler, TeacherLoss
from pipeline.training.objective import Loss, Objective


class LogitDistillation(Objective):
    """Classical distillation, the control ``metric``: CE + w L(student, teacher)."""

    def __init__(self, student: Classifier, teaching: TeacherLoss, *, weight: float, label_smoothing: float) -> None:
        super().__init__(student, teacher=teaching.teacher, label_smoothing=label_smoothing)
        self.teaching = teaching
        self.weight = weight

    def __call__(self, batch: Batch, epoch: int) -> Loss:
        """Return CE + w L."""
        logits = self.student(batch.images)
        cross_entropy = self.cross_entropy(logits, batch)
        transfer = self.teaching.cost([logits], batch, epoch)
        total = cross_entropy + self.weight * transfer
        return Loss(total, {"cross_entropy": cross_entropy, "transfer": transfer}, logits)


class FlowMatching(SteppedObjective):
    """Logit-based FM-KT with serial training: w / N sum_i [L(T(X_T_hat_i), X_T) + CE(T(X_T_hat_i), y)].

    The chain starts at the student's feature and never sees the teacher (arXiv 2402.02012, section 3).
    """

    student: FlowStudent

    def __init__(
        self, student: FlowStudent, teaching: TeacherLoss, *, steps: StepSampler, weight: float, label_smoothing: float
    ) -> None:
        super().__init__(student, teacher=teaching.teacher, label_smoothing=label_smoothing)
        self.teaching = teaching
        self.steps = steps
        self.weight = weight

    def __call__(self, batch: Batch, epoch: int) -> Loss:
        """Return the weighted mean over the steps of L + CE."""
        outputs = self.student.step_logits(batch.images, self.steps.draw(epoch))
        transfer = self.teaching.cost([outputs], batch, epoch)
        cross_entropy = self.cross_entropy(outputs, batch)
        total = self.weight * (transfer + cross_entropy)
        return Loss(total, {"cross_entropy": cross_entropy, "transfer": transfer}, outputs.mean(dim=0))


class ThetaFlowMatching(Objective):
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
        teaching: TeacherLoss,
        *,
        steps: StepSampler,
        weight: float,
        label_smoothing: float,
        theta_weight: float,
        theta_reaches_backbone: bool,
    ) -> None:
        super().__init__(student, adapter=flow, teacher=teaching.teacher, label_smoothing=label_smoothing)
        self.flow = flow
        self.teaching = teaching
        self.steps = steps
        self.weight = weight
        self.theta_weight = theta_weight
        self.theta_reaches_backbone = theta_reaches_backbone

    def __call__(self, batch: Batch, epoch: int) -> Loss:
        """Return the costs of flow and head."""
        features = self.student.features(batch.images)
        outputs = self.flow.step_outputs(features, self.steps.draw(epoch))
        logits = self.student.head(features if self.theta_reaches_backbone else features.detach())
        averaged = outputs.mean(dim=0).detach()
        parts = {
            "cross_entropy": self.cross_entropy(logits, batch),
            "transfer": self.teaching.metric(logits, averaged, labels=batch.labels, epoch=epoch),
            "flow_cross_entropy": self.cross_entropy(outputs, batch),
            "flow_transfer": self.teaching.cost([outputs], batch, epoch),
        }
        flow = self.weight * (parts["flow_transfer"] + parts["flow_cross_entropy"])
        head = self.theta_weight * (parts["transfer"] + parts["cross_entropy"])
        return Loss(flow + head, parts, logits)


class OnlineFlowMatching(SteppedObjective):
    """OFM-KT, without a teacher: w / N sum_i [CE(o_i, y) + L(o_i, stopgrad(mean_j o_j))], o_i = T(X_T_hat_i)."""

    student: FlowStudent

    def __init__(
        self, student: FlowStudent, metric: Criterion, *, steps: StepSampler, weight: float, label_smoothing: float
    ) -> None:
        super().__init__(student, label_smoothing=label_smoothing)
        self.metric = metric
        self.steps = steps
        self.weight = weight

    def __call__(self, batch: Batch, epoch: int) -> Loss:
        """Return the weighted mean over the steps of CE + L to the mean of all steps."""
        outputs = self.student.step_logits(batch.images, self.steps.draw(epoch))
        averaged = outputs.mean(dim=0)
        transfer = self.metric(outputs, averaged.detach(), labels=batch.labels, epoch=epoch)
        cross_entropy = self.cross_entropy(outputs, batch)
        total = self.weight * (transfer + cross_entropy)
        return Loss(total, {"cross_entropy": cross_entropy, "transfer": transfer}, averaged)
