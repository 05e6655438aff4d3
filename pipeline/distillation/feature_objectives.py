"""Objectives that transfer feature maps: feature-based FM-KT, and classical distillation as its control."""

from torch import nn

from models.classifier import Classifier
from models.flow import at_each_step
from models.students import FeatureFlowStudent
from pipeline.data.augmentation import Batch
from pipeline.distillation.teacher_loss import SteppedObjective, StepSampler, TeacherLoss
from pipeline.training.objective import Loss, Objective


class FeatureDistillation(Objective):
    """Classical distillation of feature maps: CE + w mean_p L(T_p(X_S), X_T).

    Args:
        transforms: T of each pair; the adapter.
        stages: the student's stage of each pair, counted from 1.
    """

    student: Classifier

    def __init__(
        self,
        student: Classifier,
        transforms: nn.ModuleList,
        teaching: TeacherLoss,
        *,
        stages: list[int],
        weight: float,
        label_smoothing: float,
    ) -> None:
        super().__init__(student, adapter=transforms, teacher=teaching.teacher, label_smoothing=label_smoothing)
        self.transforms = transforms
        self.teaching = teaching
        self.stages = stages
        self.weight = weight

    def __call__(self, batch: Batch, epoch: int) -> Loss:
        """Return CE + w L."""
        maps = self.student.feature_maps(batch.images)
        logits = self.student.head(maps[-1])
        outputs = [transform(maps[s - 1]) for transform, s in zip(self.transforms, self.stages, strict=True)]
        transfer = self.teaching.cost(outputs, batch, epoch)
        cross_entropy = self.cross_entropy(logits, batch)
        total = cross_entropy + self.weight * transfer
        return Loss(total, {"cross_entropy": cross_entropy, "transfer": transfer}, logits)


class FeatureFlowMatching(SteppedObjective):
    """Feature-based FM-KT with serial training: CE + w mean_p 1/N sum_i L(T_p(X_T_hat_i), X_T).

    The state after the last step flows on through the student, so the cross-entropy is that of the refined network.

    Args:
        transforms: T of each pair, in the order of the student's stages; the adapter.
    """

    student: FeatureFlowStudent

    def __init__(
        self,
        student: FeatureFlowStudent,
        transforms: nn.ModuleList,
        teaching: TeacherLoss,
        *,
        steps: StepSampler,
        weight: float,
        label_smoothing: float,
    ) -> None:
        super().__init__(student, adapter=transforms, teacher=teaching.teacher, label_smoothing=label_smoothing)
        self.transforms = transforms
        self.teaching = teaching
        self.steps = steps
        self.weight = weight

    def __call__(self, batch: Batch, epoch: int) -> Loss:
        """Return CE of the refined network and the weighted mean of L over pairs and steps."""
        num_steps = self.steps.draw(epoch)
        logits, paths = self.student.trajectory(batch.images, num_steps, stop=num_steps)
        outputs = [
            at_each_step(transform, path.estimates) for transform, path in zip(self.transforms, paths, strict=True)
        ]
        transfer = self.teaching.cost(outputs, batch, epoch)
        cross_entropy = self.cross_entropy(logits, batch)
        total = cross_entropy + self.weight * transfer
        return Loss(total, {"cross_entropy": cross_entropy, "transfer": transfer}, logits)
