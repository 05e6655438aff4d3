"""Objectives that transfer logits: FM-KT, FM-KT^Theta, OFM-KT, and classical distillation as their control.

What a batch costs by these methods is in ``models.transfer_losses``; here are teacher, batches and the task's loss.
"""

from typing import Any

from torch import Tensor, nn

from models.classifier import Classifier
from models.flow import FlowTransfer
from models.layers.averaged_heads import AveragedHeads
from models.step_sampler import StepSampler
from models.students import FlowStudent
from models.transfer_losses import (
    FlowTransferLoss,
    HeadTransferLoss,
    OnlineTransferLoss,
    ThetaTransferLoss,
    TransferOutput,
)
from pipeline.data.batch import Batch
from pipeline.distillation.criterion import Criterion
from pipeline.distillation.teacher_loss import TeacherLoss
from pipeline.distillation.transfer import SampledTransferObjective, TransferObjective
from pipeline.tasks.training import Predicted, Supervision
from pipeline.training.objective import Loss, Objective


class LogitDistillation(TransferObjective):
    """Classical distillation, the control ``metric``: ``models.transfer_losses.HeadTransferLoss`` of a student."""

    def __init__(
        self, student: nn.Module, teacher_loss: TeacherLoss, *, weight: float, supervision: Supervision
    ) -> None:
        super().__init__(student, teacher_loss, supervision=supervision)
        self.loss = HeadTransferLoss(weight=weight, **batch_losses(teacher_loss.criterion, supervision))

    def forward(self, batch: Batch) -> Loss:
        """Return the supervised loss + w L."""
        outputs = self._outputs(batch.images)
        return as_loss(self.loss(outputs, self.teacher_loss.teacher_logits(batch), batch), self.supervision)

    def _outputs(self, images: Tensor) -> Tensor:
        """Return logits (B, num_classes); of several heads, each of which learns by itself, (H, B, num_classes)."""
        student = self.student
        if isinstance(student, Classifier) and isinstance(student.head, AveragedHeads):
            return student.head.each(student.features(images))
        return student(images)  # type: ignore[no-any-return]


class FlowMatching(SampledTransferObjective):
    """Logit-based FM-KT: ``models.transfer_losses.FlowTransferLoss`` of a student that ends in a flow."""

    student: FlowStudent

    def __init__(
        self,
        student: FlowStudent,
        teacher_loss: TeacherLoss,
        *,
        steps: StepSampler,
        weight: float,
        supervision: Supervision,
    ) -> None:
        super().__init__(student, teacher_loss, steps=steps, supervision=supervision)
        self.loss = FlowTransferLoss(
            flow=student.flow,
            pair_ratio=teacher_loss.pair_ratio,
            num_steps=steps,
            weight=weight,
            **batch_losses(teacher_loss.criterion, supervision),
        )

    def forward(self, batch: Batch) -> Loss:
        """Return the weighted mean over the steps of L and the supervised loss."""
        features = self.student.features(batch.images)
        return as_loss(self.loss(features, self.teacher_loss.teacher_logits(batch), batch), self.supervision)


class ThetaFlowMatching(TransferObjective):
    """FM-KT^Theta: ``models.transfer_losses.ThetaTransferLoss`` of a plain student, or of one that holds the flow.

    Args:
        student: a plain one, whose head is Theta; or one whose flow's classifier is.
        flow: of a plain student, from its last feature map to logits: the adapter. None: the student holds it.
        theta: the further arguments of the loss.
    """

    student: Classifier | FlowStudent

    def __init__(
        self,
        student: Classifier | FlowStudent,
        flow: FlowTransfer | None,
        teacher_loss: TeacherLoss,
        *,
        steps: StepSampler,
        weight: float,
        supervision: Supervision,
        **theta: Any,
    ) -> None:
        loss = ThetaTransferLoss(
            None if isinstance(student, FlowStudent) else student.head,
            flow=student.flow if isinstance(student, FlowStudent) else flow,
            pair_ratio=teacher_loss.pair_ratio,
            num_steps=steps,
            weight=weight,
            **theta,
            **batch_losses(teacher_loss.criterion, supervision),
        )
        super().__init__(student, teacher_loss, supervision=supervision, adapter=flow, follows_epoch=[loss])
        self.loss = loss

    def forward(self, batch: Batch) -> Loss:
        """Return the costs of flow and head."""
        features = self.student.features(batch.images)
        return as_loss(self.loss(features, self.teacher_loss.teacher_logits(batch), batch), self.supervision)

    def predict(self, images: Tensor) -> Predicted:
        """Return the head's answers."""
        return self.student(images, 0) if isinstance(self.student, FlowStudent) else self.student(images)


class OnlineFlowMatching(Objective):
    """OFM-KT: ``models.transfer_losses.OnlineTransferLoss`` of a student that ends in a flow."""

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
        own = batch_losses(criterion, supervision)
        self.loss = OnlineTransferLoss(flow=student.flow, num_steps=steps, weight=weight, **own)
        self.steps = steps

    def forward(self, batch: Batch) -> Loss:
        """Return the weighted mean over the steps of the supervised loss and L to the mean of all steps."""
        return as_loss(self.loss(self.student.features(batch.images), batch), self.supervision)

    def predict(self, images: Tensor) -> Predicted:
        """Return the student's outputs with the largest number of steps of training."""
        return self.student(images, self.steps.largest)


def batch_losses(criterion: Criterion, supervision: Supervision) -> dict[str, Any]:
    """Return ``loss`` and ``label_loss`` of a loss of ``models.transfer_losses`` whose labels are batches."""

    def loss(student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
        return criterion(student, teacher, batch.targets)

    return {"loss": loss, "label_loss": supervision.loss}


def as_loss(found: TransferOutput, supervision: Supervision) -> Loss:
    """Return ``found`` as an objective does, its terms against the targets by the name that the task gives them."""
    parts = {name.replace("labels", supervision.loss_name): cost for name, cost in found.parts.items()}
    return Loss(found.total, parts, found.logits)
