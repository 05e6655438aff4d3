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
from pipeline.tasks.training import Predicted, Supervision
from pipeline.training.objective import Loss


def feature_cost(
    objective: "FeatureDistillation | FeatureFlowMatching",
    outputs: Sequence[Tensor],
    answers: Predicted,
    predicted: Predicted,
    batch: Batch,
) -> Loss:
    """Return the supervised loss of ``answers`` + w L(outputs) + w' L'(answers), the last term where there is one.

    Args:
        outputs: of each pair that has a loss, (B, C, H, W), with a leading dimension of steps where there are several.
        answers: what is compared with the targets, likewise.
        predicted: what the student answers.
    """
    supervised = objective.supervision.loss(answers, batch)
    costs, term = objective.teacher_loss.with_logits(outputs, answers, batch), objective.teacher_loss.logit_term
    total = supervised + objective.weight * costs.transfer
    parts = {objective.supervision.loss_name: supervised, "transfer": costs.transfer}
    if term is not None and costs.logits is not None:
        total = total + term.weight * costs.logits
        parts["logit_transfer"] = costs.logits
    return Loss(total, parts, predicted)


class FeatureDistillation(TransferObjective):
    """Classical distillation of feature maps: the supervised loss + w sum_p w_p L(T_p(X_S), X_T).

    Beside it may stand a loss of the logits; see ``feature_cost``.

    Args:
        student: shows its feature maps.
        transforms: T of each pair; the adapter.
        stages: the student's map of each pair, counted from 1.
        taught: the positions of the pairs that have a loss.
        weight: w.
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
        super().__init__(student, teacher_loss, supervision=supervision, adapter=transforms)
        self.weight = weight
        self.transforms = transforms
        self.stages = stages
        self.taught = taught

    def forward(self, batch: Batch) -> Loss:
        """Return the supervised loss + w L, and what the logits cost."""
        predicted, maps = with_stages(self.student).with_maps(batch.images)
        outputs = [call(self.transforms[i], maps[self.stages[i] - 1]) for i in self.taught]
        return feature_cost(self, outputs, predicted, predicted, batch)


class FeatureFlowMatching(SampledTransferObjective):
    """Feature-based FM-KT with serial training: the supervised loss + w sum_p w_p / N sum_i L(T_p(X_T_hat_i), X_T).

    The state after the last step flows on through the student, so the supervised loss is that of the refined network.
    Where one more flow leads to the answers, that loss is the mean over its steps, and so is that of the logits.

    Args:
        transforms: T of each pair, in the order of the student's flows; the adapter.
        taught: the positions of the pairs that have a loss.
        weight: w.
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
        super().__init__(student, teacher_loss, steps=steps, supervision=supervision, adapter=transforms)
        self.weight = weight
        self.transforms = transforms
        self.taught = taught

    def forward(self, batch: Batch) -> Loss:
        """Return the supervised loss of the refined network, the weighted one of pairs and steps, and the logits'."""
        num_steps = self.steps.draw()
        predicted, trajectories = self.student.refine(batch.images, num_steps)
        outputs: list[Tensor] = [at_each_step(self.transforms[i], trajectories[i].estimates) for i in self.taught]
        end = self.student.end_flow
        answers = predicted if end is None else at_each_step(end.transform, trajectories[-1].estimates)
        return feature_cost(self, outputs, answers, predicted, batch)
