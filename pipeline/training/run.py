"""A training from the command line: its processes, its engine, its checkpoints, its output folder."""

import contextlib
import functools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from pipeline.core.distributed import is_main, process_group
from pipeline.core.files import Json
from pipeline.data.dataset import read_split
from pipeline.data.loaders import open_training_batches
from pipeline.training.checkpoints import Checkpoints, open_checkpoints
from pipeline.training.execution import Execution, choose_execution, output_folder
from pipeline.training.loop import Row, train, write_history
from pipeline.training.objective import Objective


class TrainingRun(NamedTuple):
    """What a training stage works with."""

    engine: Execution
    checkpoints: Checkpoints
    folder: Path
    """Where its outputs go; they are kept when the run ends well, and of the main process alone."""

    def train(
        self, objective: Objective, data: Path, *, batch_size: int, augment: Json, seed: int, history: Path, **loop: Any
    ) -> list[Row]:
        """Train on the packed or indexed images in ``data``; return one row of figures per epoch.

        Args:
            history: CSV file to which the main process writes the rows after every epoch.
            loop: further arguments of ``pipeline.training.loop.train``.

        Raises:
            GateError, UserError: see ``pipeline.training.loop.train`` and ``open_training_batches``.
        """
        batches = open_training_batches(data, batch_size=batch_size, augment=augment, device=self.engine.device)
        return train(
            objective, batches, read_split(data, "calib"), self.engine,
            seed=seed, checkpoints=self.checkpoints, on_epoch=functools.partial(write_history, history), **loop,
        )  # fmt: skip


@contextlib.contextmanager
def training_run(
    stage: str, out: Path, device: torch.device, *, precision: str, engine: Json, params: Json, inputs: Sequence[Path]
) -> Iterator[TrainingRun]:
    """Yield the run of ``stage``, which goes on where an earlier one with the same ``params`` and ``inputs`` stopped.

    Its checkpoints are forgotten when ``out`` has been written.

    Args:
        precision, engine: the parameters of these names.

    Raises:
        BusyError: another process is at the same run, or writing ``out``.
    """
    with process_group(device):
        built = choose_execution(
            device, precision=precision, compiling=engine["compile"], compile_fallback=engine["compile_fallback"]
        )
        facts = {"params": params, "engine": engine | built.describe()}
        with open_checkpoints(stage, facts, inputs) as checkpoints:
            with output_folder(out) as folder:
                yield TrainingRun(built, checkpoints, folder)
            if is_main():
                checkpoints.clear()
