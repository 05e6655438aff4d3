"""What objectives share whose student takes sampling steps."""

from collections.abc import Sequence

from torch import Tensor, nn

from models.students import SampledStudent
from pipeline.distillation.step_sampler import StepSampler
from pipeline.tasks.training import Predicted, Supervision
from pipeline.training.objective import FollowsEpoch, Objective


class SteppedObjective(Objective):
    """An objective whose student takes sampling steps.

    Args:
        steps: how many, in training.
    """

    def __init__(
        self,
        student: SampledStudent,
        *,
        steps: StepSampler,
        adapter: nn.Module | None = None,
        teacher: nn.Module | None = None,
        supervision: Supervision,
        follows_epoch: Sequence[FollowsEpoch],
    ) -> None:
        super().__init__(
            student,
            adapter=adapter,
            teacher=teacher,
            supervision=supervision,
            follows_epoch=[*follows_epoch, steps],
        )
        self.steps = steps

    def predict(self, images: Tensor) -> Predicted:
        """Return the student's outputs with the largest number of steps of training."""
        return self.trained(images, self.steps.largest)
