"""Progress of a training run: a bar on a terminal, plain lines elsewhere."""

import logging
import resource
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from pipeline.core.distributed import is_main
from pipeline.core.other_programs import advice_beside_others, beside_others
from pipeline.training.epoch_metrics import EpochMetrics
from pipeline.training.foretelling import FORETELLING, FirstSteps, watch_others

logger = logging.getLogger(__name__)

READ_SECONDS = 1.0
"""How often the figures are read from the device."""
LINE_SECONDS = 60.0
"""How often a line is written within an epoch where there is no terminal."""


class Progress:
    """Show figures, images per second and the time left of ``epochs`` of ``num_steps`` batches.

    Args:
        done: epochs that an earlier run has done.
        batch_size: images in a batch.
    """

    def __init__(self, bar: "tqdm[Any]", *, epochs: int, done: int, num_steps: int, batch_size: int) -> None:
        self.bar = bar
        self.epochs = epochs
        self.num_steps = num_steps
        self.batch_size = batch_size
        self.steps_left = (epochs - done) * num_steps
        self.steps_taken = 0
        self.first_steps = FirstSteps()
        self.others = watch_others()
        self.started = self.read_at = self.line_at = time.perf_counter()

    def step(self, metrics: EpochMetrics, *, epoch: int) -> None:
        """Take note of a step; now and then read its figures and show them.

        Raises:
            DivergedError: a loss is not finite.
        """
        self.steps_taken += 1
        self.bar.update(self.batch_size)
        self._foretell()
        now = time.perf_counter()
        if now - self.read_at < READ_SECONDS and metrics.count < metrics.num_steps:
            return
        self.read_at = now
        figures = describe(metrics.latest())
        self.bar.set_postfix_str(f"epoch {epoch + 1}/{self.epochs}, {figures}", refresh=False)
        if self.bar.disable and is_main() and now - self.line_at >= LINE_SECONDS:
            self.line_at = now
            logger.info("epoch %d step %d/%d  %s  %s", epoch + 1, metrics.count, self.num_steps, figures, self._pace())

    def epoch(self, row: Mapping[str, Any]) -> None:
        """Write one line about an epoch."""
        self.line_at = time.perf_counter()
        if is_main():
            figures = {name: value for name, value in row.items() if name not in {"epoch", "learning_rate"}}
            logger.info("epoch %d/%d  %s  %s", row["epoch"], self.epochs, describe(figures), self._pace())

    def _foretell(self) -> None:
        """Say once how long all will take."""
        found = self.first_steps.step()
        if found is not None and is_main():
            advice = advice_beside_others(found.others)
            logger.info(
                "the first %d steps foretell %s for this training%s; %smemory so far %.1f GiB",
                FORETELLING,
                tqdm.format_interval(found.seconds * self.steps_left),
                beside_others(found.others),
                f"{advice}; " if advice else "",
                peak_memory() / 2**30,
            )

    def _pace(self) -> str:
        seconds = (time.perf_counter() - self.started) / self.steps_taken
        left = tqdm.format_interval((self.steps_left - self.steps_taken) * seconds)
        return f"{self.batch_size / seconds:,.0f} images/s, {left} left{beside_others(self.others.share())}"


def peak_memory() -> int:
    """Return the most memory that training has taken so far, in bytes: of the GPU where it runs on one."""
    if torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def describe(figures: Mapping[str, float]) -> str:
    """Return ``figures`` in words: accuracies in percent."""
    return ", ".join(
        f"{name} {value:.1%}" if name.endswith("accuracy") else f"{name} {value:.4g}" for name, value in figures.items()
    )


@contextmanager
def progress(*, epochs: int, done: int, num_steps: int, batch_size: int) -> Iterator[Progress]:
    """Yield a ``Progress`` whose bar shares the terminal with the log."""
    size = num_steps * batch_size
    bar = tqdm(
        total=epochs * size, initial=done * size, unit=" images", unit_scale=True, leave=False, smoothing=0.1,
        disable=not (is_main() and sys.stderr.isatty()),
    )  # fmt: skip
    with bar, logging_redirect_tqdm():
        yield Progress(bar, epochs=epochs, done=done, num_steps=num_steps, batch_size=batch_size)
