"""Objectives that transfer feature maps: feature-based FM-KT, and classical distillation as its control.

They know no task: a network shows its feature maps and answers from them.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from models.core.calling import call
from models.flow import at_each_step
from models.step_sampler import StepSampler
from models.students import RefinedStudent
from pipeline.data.batch import Batch
from pipeline.distillation.frozen_teacher import with_stages
from pipeline.distillation.teacher_loss import TeacherLoss
from pipeline.distillation.transfer import SampledTransferObjective, TransferObjective
from pipeline.tasks.training import Supervision
from pipeline.training.objective import Loss


class FeatureDistillation(TransferObjective):
    """Classical distillation of feature maps: the supervised loss + w sum_p w_p L(T_p(X_S), X_T).

    Args:
        student: shows its feature maps.
        transforms: T of each pair; the adapter.
        stages: the student's map of each pair, counted from 1.
        taught: the positions of the pairs that have a loss.
    """

    def __init__(
        self,
        student: nn.Module,
        transforms: nn.ModuleList,
        teacher_loss: TeacherLoss,
        *,
        stages: Sequence[int],
        taught: Sequence[int],
        weight: float,
        supervision: Supervision,
    ) -> None:
        super().__init__(student, teacher_loss, weight=weight, supervision=supervision, adapter=transforms)
        self.transforms = transforms
        self.stages = stages
        self.taught = taught

    def forward(self, batch: Batch) -> Loss:
        """Return the supervised loss + w L."""
        student = with_stages(self.student)
        maps = student.feature_maps(batch.images)
        predicted = student.from_maps(maps)
        outputs = [call(self.transforms[i], maps[self.stages[i] - 1]) for i in self.taught]
        transfer = self.teacher_loss(outputs, batch)
        supervised = self.supervision.loss(predicted, batch)
        total = supervised + self.weight * transfer
        return Loss(total, {self.supervision.loss_name: supervised, "transfer": transfer}, predicted)


class FeatureFlowMatching(SampledTransferObjective):
    """Feature-based FM-KT with serial training: the supervised loss + w sum_p w_p / N sum_i L(T_p(X_T_hat_i), X_T).

    The state after the last step flows on through the student, so the supervised loss is that of the refined network.

    Args:
        transforms: T of each pair, in the order of the student's flows; the adapter.
        taught: the positions of the pairs that have a loss.
    """

    student: RefinedStudent

    def __init__(
        self,
        student: RefinedStudent,
        transforms: nn.ModuleList,
        teacher_loss: TeacherLoss,
        *,
        taught: Sequence[int],
        steps: StepSampler,
        weight: float,
        supervision: Supervision,
    ) -> None:
        super().__init__(student, teacher_loss, steps=steps, weight=weight, supervision=supervision, adapter=transforms)
        self.transforms = transforms
        self.taught = taught

    def forward(self, batch: Batch) -> Loss:
        """Return the supervised loss of the refined network and the weighted loss over pairs and steps."""
        num_steps = self.steps.draw()
        predicted, trajectories = self.student.refine(batch.images, num_steps, stop=num_steps)
        outputs: list[Tensor] = [at_each_step(self.transforms[i], trajectories[i].estimates) for i in self.taught]
        transfer = self.teacher_loss(outputs, batch)
        supervised = self.supervision.loss(predicted, batch)
        total = supervised + self.weight * transfer
        return Loss(total, {self.supervision.loss_name: supervised, "transfer": transfer}, predicted)
