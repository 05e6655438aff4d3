"""The training loop: any objective, any network; interrupted, it goes on from its last checkpoint."""

import contextlib
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipeline.core.distributed import broadcast, is_main, local_shard, all_reduce_sum
from pipeline.core.errors import UserError
from pipeline.core.files import write_csv
from pipeline.core.torch_setup import derive_seed, seed_everything
from pipeline.data.augmentation import Batch
from pipeline.data.dataset import Split
from pipeline.data.packed_batches import TrainingBatches, ordered_batches
from pipeline.training.checkpoints import Checkpoints
from pipeline.training.compilation import compile_networks, guard_first_call, stop_compiling, uncompiled
from pipeline.training.epoch_metrics import Meter
from pipeline.training.execution import Execution
from pipeline.training.objective import Loss, Objective
from pipeline.training.optim import WeightAverage, build_optimizer
from pipeline.training.progress import Progress, progress
from pipeline.training.step import TrainingStep

logger = logging.getLogger(__name__)

EVALUATION_BATCH = 256
EMPTY_HISTORY = ("epoch", "learning_rate", "loss", "cross_entropy", "train_accuracy", "val_accuracy")
Row = dict[str, Any]


def write_history(path: Path, rows: list[Row]) -> None:
    """Write the epochs as CSV, a header alone where there are none (nothing was trained)."""
    write_csv(path, list(rows[0]) if rows else EMPTY_HISTORY, rows)


def train(
    objective: Objective,
    batches: TrainingBatches,
    held_out: Split,
    engine: Execution,
    *,
    epochs: int,
    clip_norm: float | None,
    ema_decay: float | None,
    optimizer: dict[str, Any],
    schedule: dict[str, Any],
    seed: int,
    checkpoints: Checkpoints,
    on_epoch: Callable[[list[Row]], None],
) -> list[Row]:
    """Train ``objective.network`` in place and return one row of figures per epoch.

    Every epoch starts from a seed of its own, so that from the state after one the next can be repeated bit for bit.

    Args:
        held_out: images not trained on, for the accuracy of each epoch; it chooses nothing.
        clip_norm: largest norm of the gradient; None: any.
        ema_decay: what the network ends with is the moving average of its weights; None: the last weights.
        optimizer: arguments of ``pipeline.training.optim.build_optimizer``.
        schedule: see ``pipeline.training.optim.learning_rate_factor``.
        checkpoints: where the state after each epoch is kept, and from where training goes on.
        on_epoch: called with all rows so far after every epoch, and before the first of a resumed run, in the main
            process.

    Raises:
        GateError: the loss is not finite.
        UserError: deterministic training is asked for, and the network has a layer without it on this device; or
            compiling failed.
    """
    network = objective.network.to(engine.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    average = WeightAverage(network, ema_decay) if ema_decay is not None else None
    rule = build_optimizer(network, steps_per_epoch=len(batches), epochs=epochs, schedule=schedule, **optimizer)
    settings: dict[str, Any] = {"precision": engine.precision, "clip_norm": clip_norm, "average": average}
    step = TrainingStep(objective, *rule, device=engine.device, **settings)
    rows = _resume(step, checkpoints, on_epoch)
    run_epoch = _EpochRunner(step, batches, engine, seed=seed)
    with _shown(epochs, len(rows), batches, engine) as shown, _nondeterminism_explained():
        for epoch in range(len(rows), epochs):
            row = run_epoch(epoch, shown)
            row["val_accuracy"] = _judge(objective, step, held_out, engine)
            rows.append(row)
            shown.epoch(row)
            if is_main():
                checkpoints.save(len(rows), {"rows": rows, "step": step.state_dict()})
                on_epoch(rows)
    _finish(step, engine)
    return rows


def _finish(step: TrainingStep, engine: Execution) -> None:
    """Leave what deploys in the network, in eval mode and uncompiled."""
    if step.average is not None:
        step.average.install()
    if execution.compiled:
        stop_compiling()
    step.network.eval()


@contextlib.contextmanager
def _shown(epochs: int, done: int, batches: TrainingBatches, engine: Execution) -> Iterator[Progress]:
    """Say how training runs and yield its progress."""
    num_steps, batch_size = len(batches), batches.batch_size
    if is_main():
        facts = ", ".join(f"{name} {value}" for name, value in engine.describe().items())
        logger.info("training: %d epochs of %d batches of %d; %s", epochs, num_steps, batch_size, facts)
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

    def __init__(self, step: TrainingStep, batches: TrainingBatches, engine: Execution, *, seed: int) -> None:
        self.step = step
        self.take: Callable[[Batch, int], Loss] = step
        self.batches = batches
        self.seed = seed
        if execution.compiled:
            compile_networks(*step.objective.networks)
            self.take = guard_first_call(step, fallback=execution.compile_fallback)

    def __call__(self, epoch: int, shown: Progress) -> Row:
        """Return the means of the loss, its parts and the training accuracy in ``epoch``, counted from 0."""
        seed_everything(self.seed, "epoch", epoch)
        self.step.network.train()
        meter = Meter(len(self.batches))
        row: Row = {"epoch": epoch + 1, "learning_rate": self.step.learning_rate}
        for batch in self.batches.epoch(derive_seed(self.seed, "batches", epoch)):
            learning_rate = self.step.learning_rate
            meter.add(self.take(batch, epoch), batch.labels, learning_rate)
            shown.step(meter, epoch=epoch)
        return row | meter.means()


def _judge(objective: Objective, step: TrainingStep, held_out: Split, engine: Execution) -> float:
    """Return the accuracy on ``held_out`` of the weights that would deploy if this were the last epoch."""
    averaged = contextlib.nullcontext() if step.average is None else step.average.applied()
    with averaged, uncompiled() if execution.compiled else contextlib.nullcontext(), step.autocast:
        step.network.eval()
        return accuracy(objective.predict, held_out, engine.device)


@torch.no_grad()
def accuracy(predict: Callable[[Tensor], Tensor], split: Split, device: torch.device) -> float:
    """Return the share of ``split`` whose largest logit is the label's; processes share the work."""
    own = local_shard(0, len(split))
    correct = torch.zeros((), dtype=torch.int64, device=device)
    for batch in ordered_batches(Split(split.images[own], split.labels[own]), EVALUATION_BATCH, device):
        correct += (predict(batch.images).argmax(dim=1) == batch.labels).sum()
    return int(all_reduce_sum(correct)) / len(split)


@contextlib.contextmanager
def _nondeterminism_explained() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        if "does not have a deterministic implementation" not in str(error):
            raise
        raise UserError(f"base.deterministic: got True, but {str(error).split('.')[0]}; set it to false") from error
