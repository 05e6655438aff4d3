"""A training from the command line: its processes, its execution, its checkpoints, its output folder."""

import contextlib
import functools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from pipeline.core.distributed import is_main, process_group
from pipeline.core.files import Json
from pipeline.data.batch import TrainingBatches
from pipeline.data.dataset import read_info, read_split
from pipeline.data.loaders import open_training_batches
from pipeline.tasks.training import TaskTraining
from pipeline.training.checkpoints import Checkpoints, open_checkpoints
from pipeline.training.diagnosis import require_finite
from pipeline.training.execution import Execution, choose_execution, output_folder
from pipeline.training.loop import Row, train, write_history
from pipeline.training.objective import Objective
from pipeline.training.settings import ExecutionSettings, Training


class TrainingRun(NamedTuple):
    """What a training stage works with."""

    key: str
    """Of the settings of the training in the parameters file, for messages."""
    execution: Execution
    checkpoints: Checkpoints
    folder: Path
    """Where its outputs go; they are kept when the run ends well, and of the main process alone."""

    def train(
        self, objective: Objective, data: Path, task: TaskTraining, settings: Training, *, seed: int, history: Path
    ) -> list[Row]:
        """Train on the packed or indexed images in ``data``; return one row of figures per epoch.

        Args:
            history: CSV file to which the main process writes the rows after every epoch.

        Raises:
            DivergedError, UserError: see ``pipeline.training.loop.train`` and ``open_training_batches``.
        """
        rows = train(
            objective,
            open_batches(data, task, settings, self.execution.device, repeats=objective.num_views is not None),
            read_split(data, "calib", task.read_targets),
            self.execution,
            settings,
            seed=seed,
            key=self.key,
            checkpoints=self.checkpoints,
            on_epoch=functools.partial(write_history, history),
        )
        require_finite(objective.network, key=self.key)
        return rows


def open_batches(
    data: Path, task: TaskTraining, settings: Training, device: torch.device, *, repeats: bool
) -> TrainingBatches:
    """Return the training batches of the data in the folder ``data``.

    Args:
        repeats: whether epochs come again as they were, so that no image must be missing in one.

    Raises:
        UserError: see ``open_training_batches``.
    """
    return open_training_batches(
        data,
        task.read_targets,
        batch_size=settings.batch_size,
        min_steps=settings.min_epoch_steps,
        leaves_none_out=repeats,
        augment=settings.augment,
        mix=task.build_mix(settings.augment, read_info(data)),
        device=device,
    )


@contextlib.contextmanager
def training_run(
    stage: str,
    out: Path,
    device: torch.device,
    settings: ExecutionSettings,
    *,
    precision: str,
    network: nn.Module | None,
    params: Json,
    inputs: Sequence[Path],
    code: str,
) -> Iterator[TrainingRun]:
    """Yield the run of ``stage``, which goes on where an earlier one of the same facts stopped.

    Its checkpoints are forgotten when ``out`` has been written.

    Args:
        precision: of the training; may be ``auto``.
        network: what trains; None: nothing does.
        params: the parameters that decide about the result, by their sections.
        inputs: the files that do.
        code: digest of the code that does.

    Raises:
        BusyError: another process is at the same run, or writing ``out``.
    """
    with process_group(device):
        execution = choose_execution(device, settings, precision=precision, network=network)
        decisive = settings.model_dump(mode="json", exclude={"hosts"})
        facts = {"params": params, "execution": decisive | execution.describe()}
        with open_checkpoints(stage, facts, inputs, code=code) as checkpoints:
            with output_folder(out) as folder:
                yield TrainingRun(f"{stage}.training", execution, checkpoints, folder)
            if is_main():
                checkpoints.clear()
