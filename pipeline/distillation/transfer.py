"""What objectives share that transfer something, and those whose student takes sampling steps."""

from collections.abc import Sequence

from torch import Tensor, nn

from models.step_sampler import StepSampler
from models.students import SampledStudent
from pipeline.distillation.teacher_loss import TeacherLoss
from pipeline.tasks.training import Predicted, Supervision
from pipeline.training.objective import FollowsEpoch, Objective


class TransferObjective(Objective):
    """An objective with a loss against a teacher.

    Args:
        adapter: what is trained beside the student and does not deploy, or None.
        follows_epoch: what must know the epoch, beside teacher and criterion.
    """

    def __init__(
        self,
        student: nn.Module,
        teacher_loss: TeacherLoss,
        *,
        supervision: Supervision,
        adapter: nn.Module | None = None,
        follows_epoch: Sequence[FollowsEpoch] = (),
    ) -> None:
        super().__init__(
            student,
            adapter=adapter,
            teacher=teacher_loss.teacher,
            supervision=supervision,
            follows_epoch=[teacher_loss, *follows_epoch],
            num_views=teacher_loss.teacher.num_views,
        )
        self.teacher_loss = teacher_loss


class SampledTransferObjective(TransferObjective):
    """A transfer whose student takes sampling steps.

    Args:
        steps: how many, in training.
    """

    def __init__(
        self,
        student: SampledStudent,
        teacher_loss: TeacherLoss,
        *,
        steps: StepSampler,
        supervision: Supervision,
        adapter: nn.Module | None = None,
    ) -> None:
        super().__init__(student, teacher_loss, supervision=supervision, adapter=adapter, follows_epoch=[steps])
        self.steps = steps

    def predict(self, images: Tensor) -> Predicted:
        """Return the student's outputs with the largest number of steps of training."""
        return self.student(images, self.steps.largest)
