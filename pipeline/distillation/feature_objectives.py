"""Objectives that transfer feature maps: feature-based FM-KT, and classical distillation as its control."""

from collections.abc import Sequence

from torch import nn

from models.classifier import Classifier
from models.core.calling import call
from models.flow import at_each_step
from models.students import FeatureFlowStudent
from pipeline.data.batch import Batch
from pipeline.distillation.step_sampler import StepSampler
from pipeline.distillation.teacher_loss import TeacherLoss
from pipeline.distillation.transfer import SampledTransferObjective, TransferObjective
from pipeline.tasks.training import Supervision
from pipeline.training.objective import Loss


class FeatureDistillation(TransferObjective):
    """Classical distillation of feature maps: the supervised loss + w mean_p L(T_p(X_S), X_T).

    Args:
        transforms: T of each pair; the adapter.
        stages: the student's stage of each pair, counted from 1.
    """

    student: Classifier

    def __init__(
        self,
        student: Classifier,
        transforms: nn.ModuleList,
        teacher_loss: TeacherLoss,
        *,
        stages: Sequence[int],
        weight: float,
        supervision: Supervision,
    ) -> None:
        super().__init__(student, teacher_loss, weight=weight, supervision=supervision, adapter=transforms)
        self.transforms = transforms
        self.stages = stages

    def forward(self, batch: Batch) -> Loss:
        """Return the supervised loss + w L."""
        maps = self.student.feature_maps(batch.images)
        predicted = call(self.student.head, maps[-1])
        outputs = [transform(maps[s - 1]) for transform, s in zip(self.transforms, self.stages, strict=True)]
        transfer = self.teacher_loss(outputs, batch)
        supervised = self.supervision.loss(predicted, batch)
        total = supervised + self.weight * transfer
        return Loss(total, {self.supervision.loss_name: supervised, "transfer": transfer}, predicted)


class FeatureFlowMatching(SampledTransferObjective):
    """Feature-based FM-KT with serial training: the supervised loss + w mean_p 1/N sum_i L(T_p(X_T_hat_i), X_T).

    The state after the last step flows on through the student, so the supervised loss is that of the refined network.

    Args:
        transforms: T of each pair, in the order of the student's stages; the adapter.
    """

    student: FeatureFlowStudent

    def __init__(
        self,
        student: FeatureFlowStudent,
        transforms: nn.ModuleList,
        teacher_loss: TeacherLoss,
        *,
        steps: StepSampler,
        weight: float,
        supervision: Supervision,
    ) -> None:
        super().__init__(student, teacher_loss, steps=steps, weight=weight, supervision=supervision, adapter=transforms)
        self.transforms = transforms

    def forward(self, batch: Batch) -> Loss:
        """Return the supervised loss of the refined network and the weighted mean of L over pairs and steps."""
        num_steps = self.steps.draw()
        predicted, trajectories = self.student.refine(batch.images, num_steps, stop=num_steps)
        outputs = [
            at_each_step(transform, trajectory.estimates)
            for transform, trajectory in zip(self.transforms, trajectories, strict=True)
        ]
        transfer = self.teacher_loss(outputs, batch)
        supervised = self.supervision.loss(predicted, batch)
        total = supervised + self.weight * transfer
        return Loss(total, {self.supervision.loss_name: supervised, "transfer": transfer}, predicted)
