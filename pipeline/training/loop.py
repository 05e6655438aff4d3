"""The training loop: any objective, any network; interrupted, it goes on from its last checkpoint."""

import contextlib
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pipeline.core.distributed import broadcast, is_main
from pipeline.core.errors import UserError
from pipeline.core.files import write_csv
from pipeline.core.printable import first_line
from pipeline.core.torch_setup import derive_seed, seed_everything
from pipeline.data.batch import Batch, TrainingBatches
from pipeline.data.dataset import Split
from pipeline.tasks.training import Supervision, Validation
from pipeline.training.batch_norms import keep_up_batch_norms
from pipeline.training.checkpoints import Checkpoints
from pipeline.training.compilation import compiled_networks, guard_compiling, uncompiled
from pipeline.training.diagnosis import early_warning
from pipeline.training.epoch_metrics import EpochMetrics
from pipeline.training.execution import Execution
from pipeline.training.objective import AveragedApart, Loss, Objective
from pipeline.training.optim import WeightAverage, build_optimizer
from pipeline.training.progress import Progress, progress
from pipeline.training.settings import Training
from pipeline.training.small_convolutions import strides_taken_first
from pipeline.training.step import TrainingStep

logger = logging.getLogger(__name__)

Row = dict[str, Any]


def write_history(path: Path, rows: list[Row]) -> None:
    """Write the epochs as CSV."""
    write_csv(path, list(rows[0]), rows)


def write_empty_history(path: Path, supervision: Supervision, primary: str) -> None:
    """Write the header of a history alone: nothing was trained. ``primary`` is the task's score that decides."""
    write_csv(path, ["epoch", "learning_rate", "loss", supervision.loss_name, f"train_{primary}", f"val_{primary}"], [])


def train(
    objective: Objective,
    batches: TrainingBatches,
    val: Split,
    execution: Execution,
    settings: Training,
    *,
    seed: int,
    key: str,
    checkpoints: Checkpoints,
    on_epoch: Callable[[list[Row]], None],
) -> list[Row]:
    """Train ``objective.network`` in place and return one row of figures per epoch.

    Every epoch starts from a seed of its own, so that from the state after one the next can be repeated bit for bit.

    Args:
        val: images not trained on, for the scores of each epoch; they choose nothing.
        key: of ``settings`` in the parameters file, for messages.
        checkpoints: where the state after each epoch is kept, and from where training goes on.
        on_epoch: called with all rows so far after every epoch, and before the first of a resumed run, in the main
            process.

    Raises:
        DivergedError: the loss is not finite.
        UserError: deterministic training is asked for, and the network has a layer without it on this device; the
            device has too little memory; or compiling failed.
    """
    step = build_step(objective, execution, settings, steps_per_epoch=len(batches))
    rows = _resume(step, checkpoints, on_epoch)
    with (
        _compiled(objective, execution),
        _shown(settings.epochs, len(rows), batches, execution) as shown,
        refusals_explained(settings, key=key),
        strides_taken_first(objective.network, execution.device),
    ):
        run_epoch = _EpochRunner(step, batches, execution, seed=seed, key=key)
        concern = None
        for epoch in range(len(rows), settings.epochs):
            row = run_epoch(epoch, shown)
            scores = _validate(objective, step, val, execution).scores
            row |= {f"val_{name}": value for name, value in scores.items()}
            rows.append(row)
            shown.epoch(row)
            if is_main() and concern is None and len(rows) < settings.epochs:
                concern = early_warning(row, objective.supervision, key=key, epochs=settings.epochs)
                if concern:
                    logger.warning("%s; stopped now, it goes on from here when started again unchanged", concern)
            if is_main():
                checkpoints.save(len(rows), {"rows": rows, "step": step.state_dict()})
                on_epoch(rows)
    if step.average is not None:
        step.average.install()
    step.network.eval()
    return rows


def build_step(objective: Objective, execution: Execution, settings: Training, *, steps_per_epoch: int) -> TrainingStep:
    """Return what updates ``objective.network``, which is moved to the device."""
    tuning, tuned = settings.fine_tuning, objective.tuned
    network = objective.network.to(execution.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    keep_up_batch_norms(
        network,
        num_steps=(settings.epochs - (tuning.frozen_epochs if tuned else 0)) * steps_per_epoch,
        frozen=tuned.batch_norms() if tuned and tuning.batch_norm == "frozen" else (),
    )
    average = _average(network, settings.ema_decay, objective.averaged_apart)
    optimizer, scheduler = build_optimizer(
        network,
        settings.optimizer,
        settings.schedule,
        steps_per_epoch=steps_per_epoch,
        epochs=settings.epochs,
        slowed=tuned.parameters() if tuned else (),
        slowed_factor=tuning.backbone_learning_rate_factor,
    )
    return TrainingStep(
        objective,
        optimizer,
        scheduler,
        precision=execution.precision,
        clip_norm=settings.clip_norm,
        average=average,
        device=execution.device,
    )


def _average(network: nn.Module, decay: float | None, apart: AveragedApart | None) -> WeightAverage | None:
    if apart is None:
        return None if decay is None else WeightAverage(network, decay)
    own = dict.fromkeys(parameter for module in apart.modules for parameter in module.parameters())
    return WeightAverage(network, decay, ([*own], apart.decay))


def _compiled(objective: Objective, execution: Execution) -> contextlib.AbstractContextManager[None]:
    if not execution.compiled:
        return contextlib.nullcontext()
    return compiled_networks(objective.network, *([objective.teacher] if objective.teacher else []))


@contextlib.contextmanager
def _shown(epochs: int, done: int, batches: TrainingBatches, execution: Execution) -> Iterator[Progress]:
    """Say how training runs and yield its progress."""
    num_steps, batch_size = len(batches), batches.batch_size
    if is_main():
        facts = ", ".join(f"{name} {value}" for name, value in execution.describe().items())
        total = epochs * num_steps
        logger.info(
            "training: %d epochs of %d steps of %d images, %d steps; %s", epochs, num_steps, batch_size, total, facts
        )
    with progress(epochs=epochs, done=done, num_steps=num_steps, batch_size=batch_size) as shown:
        yield shown


def _resume(step: TrainingStep, checkpoints: Checkpoints, on_epoch: Callable[[list[Row]], None]) -> list[Row]:
    """Put ``step`` into the last state that was kept; report and return the rows of the epochs before it."""
    state = broadcast(checkpoints.latest() if is_main() else None)
    if state is None:
        return []
    step.load_state_dict(state["step"])
    rows: list[Row] = state["rows"]
    logger.info("an earlier run was interrupted; going on after its epoch %d", len(rows))
    if is_main():
        on_epoch(rows)
    return rows


class _EpochRunner:
    """Run one epoch of training steps after the other."""

    def __init__(
        self, step: TrainingStep, batches: TrainingBatches, execution: Execution, *, seed: int, key: str
    ) -> None:
        self.step = step
        self.take: Callable[[Batch], Loss] = step
        self.batches = batches
        self.seed = seed
        self.key = key
        self.compiled = execution.compiled
        self.learning: list[bool] = []
        """For each parameter whether it learned in the epoch before; empty before the first."""
        if execution.compiled:
            networks = [step.objective.network, *([step.objective.teacher] if step.objective.teacher else [])]
            self.take = guard_compiling(step, networks, fallback=execution.compile_fallback)

    def __call__(self, epoch: int, shown: Progress) -> Row:
        """Return the means of the loss, its parts and the task's scores in ``epoch``, counted from 0."""
        seed_everything(self.seed, "epoch", epoch)
        objective = self.step.objective
        self.step.begin_epoch(epoch)
        if self.compiled:
            self._compile_for_what_learns()
        metrics = EpochMetrics(len(self.batches), key=self.key)
        row: Row = {"epoch": epoch + 1, "learning_rate": self.step.learning_rate}
        for batch in self.batches.epoch(derive_seed(self.seed, "batches", objective.view(epoch))):
            learning_rate = self.step.learning_rate
            loss = self.take(batch)
            metrics.add(loss, objective.supervision.batch_scores(loss.predicted, batch), learning_rate)
            shown.step(metrics, epoch=epoch)
        return row | metrics.means()

    def _compile_for_what_learns(self) -> None:
        """Forget what was compiled while other parameters learned: PyTorch 2.11 goes on with it, without gradients.

        The first epoch forgets what an earlier training of this process compiled.
        """
        learning = [parameter.requires_grad for parameter in self.step.objective.parameters()]
        if learning != self.learning:
            torch.compiler.reset()
            self.learning = learning


def _validate(objective: Objective, step: TrainingStep, val: Split, execution: Execution) -> Validation:
    """Return what is found on ``val`` of the weights that would deploy if this were the last epoch."""
    averaged = contextlib.nullcontext() if step.average is None else step.average.applied()
    eager = uncompiled() if execution.compiled else contextlib.nullcontext()
    with averaged, eager, step.autocast:
        step.network.eval()
        return objective.supervision.validate(objective.predict, val, execution.device)


@contextlib.contextmanager
def refusals_explained(settings: Training, *, key: str) -> Iterator[None]:
    """Turn PyTorch's refusals of a layer, or of more memory, into a UserError that names the parameter.

    Args:
        key: of ``settings`` in the parameters file.
    """
    try:
        yield
    except RuntimeError as error:
        said = str(error)  # whole: the words that tell may stand anywhere in a long line
        if "does not have a deterministic implementation" in said:
            raise UserError(
                f"base.deterministic: got True, but {said.split('.', maxsplit=1)[0]}; set it to false"
            ) from error
        if isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in said:
            raise UserError(
                f"{key}.batch_size: got {settings.batch_size}, for which there is too little memory "
                f"({first_line(error)}); halve it, and {key}.optimizer.learning_rate with it, or end what else uses "
                "the device; the same command then trains anew"
            ) from error
        raise
