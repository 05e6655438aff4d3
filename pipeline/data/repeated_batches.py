"""Epochs of a small data set, of several passes over its images."""

from collections.abc import Iterator

from pipeline.core.torch_setup import derive_seed
from pipeline.data.batch import Batch, TrainingBatches


class RepeatedBatches:
    """Batches of ``inner``, passed over so often that an epoch has ``min_steps`` of them or more.

    Each pass has an order and augmentation of its own.
    """

    def __init__(self, inner: TrainingBatches, *, min_steps: int) -> None:
        self.inner = inner
        self.batch_size = inner.batch_size
        self.passes = -(-min_steps // len(inner))

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        return self.passes * len(self.inner)

    def epoch(self, seed: int) -> Iterator[Batch]:
        """Yield the batches of one epoch; ``seed`` fixes their order and augmentation."""
        yield from self.inner.epoch(seed)
        for number in range(1, self.passes):
            yield from self.inner.epoch(derive_seed(seed, "pass", number))
