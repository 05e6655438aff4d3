"""A criterion with its settings filled in, over the shards of all processes."""

from torch import Tensor

from pipeline.core.distributed import all_gather
from pipeline.core.settings import Section
from pipeline.data.batch import Targets
from pipeline.distillation.criteria import CRITERIA
from pipeline.tasks.classification.targets import ClassTargets

WARMUP = "warmup_epochs"
"""The setting over whose number of epochs a loss grows linearly to its full weight."""


class Criterion:
    """L(student, teacher) of one batch.

    Args:
        name: of an entry in the table of criteria.
        settings: those of the entry; None where it has none.

    Raises:
        ValueError: the name is unknown; the message lists the known ones.
    """

    def __init__(self, name: str, settings: Section | None = None) -> None:
        self.entry = CRITERIA[name]
        self.function = self.entry.load()
        fields = type(settings).model_fields if settings is not None else {}
        self.options = {field: getattr(settings, field) for field in fields if field != WARMUP}
        self.warmup_epochs: int = getattr(settings, WARMUP, 0)
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Take note that ``epoch``, counted from 0, begins."""
        self.epoch = epoch

    def __call__(self, student: Tensor, teacher: Tensor, targets: Targets) -> Tensor:
        """Return a scalar.

        ``student`` is shaped like ``teacher`` (B, ...), with a leading dimension of steps where there are several; the
        loss is the mean over them. Where several processes train together it is that of the whole batch in each.
        """
        tensors = [all_gather(student, dim=student.dim() - teacher.dim()), all_gather(teacher)]
        if self.entry.takes_labels:
            assert isinstance(targets, ClassTargets)
            tensors.append(all_gather(targets.labels))
        weight = min((self.epoch + 1) / self.warmup_epochs, 1.0) if self.warmup_epochs else 1.0
        loss: Tensor = weight * self.function(*tensors, **self.options)
        return loss
