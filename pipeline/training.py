"""The training loop: any objective, any network."""

import contextlib
import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from pipeline.data.batches import TrainingBatches, ordered_batches
from pipeline.data.store import Split
from pipeline.errors import GateError, UserError
from pipeline.files import write_csv
from pipeline.objectives import Objective
from pipeline.optim import build_optimizer
from pipeline.seeding import derive_seed, seed_everything

logger = logging.getLogger(__name__)

EVALUATION_BATCH = 256
EMPTY_HISTORY = ("epoch", "learning_rate", "loss", "cross_entropy", "train_accuracy", "held_out_accuracy")
Row = dict[str, Any]


def write_history(path: Path, rows: list[Row]) -> None:
    """Write the epochs as CSV, a header alone where there are none (nothing was trained)."""
    write_csv(path, list(rows[0]) if rows else EMPTY_HISTORY, rows)


def train(
    objective: Objective,
    train_split: Split,
    held_out: Split,
    *,
    epochs: int,
    batch_size: int,
    precision: str,
    optimizer: dict[str, Any],
    schedule: dict[str, Any],
    augment: dict[str, Any],
    seed: int,
    device: torch.device,
    on_epoch: Callable[[list[Row]], None],
) -> list[Row]:
    """Train ``objective.network`` in place and return one row of figures per epoch.

    Args:
        precision: ``fp32``, or ``bf16`` for automatic mixed precision; weights and losses stay in float32.
        held_out: images not trained on, for the accuracy of each epoch; it chooses nothing.
        optimizer: learning_rate, momentum, nesterov, weight_decay, decay_all.
        schedule: see ``pipeline.optim.learning_rate_factor``.
        augment: crop_padding, horizontal_flip.
        on_epoch: called with all rows so far after every epoch.

    Raises:
        GateError: the loss is not finite.
        UserError: deterministic training is asked for, and the network has a layer without it on this device.
    """
    network = objective.network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    batches = TrainingBatches(train_split, batch_size=batch_size, device=device, **augment)
    sgd, scheduler = build_optimizer(
        network, steps_per_epoch=len(batches), epochs=epochs, schedule=schedule, **optimizer
    )
    rows: list[Row] = []
    for epoch in range(epochs):
        seed_everything(seed, "epoch", epoch)
        started = time.perf_counter()
        row = {"epoch": epoch + 1, "learning_rate": sgd.param_groups[0]["lr"]}
        with _nondeterminism_explained():
            row |= _train_epoch(
                objective, batches, sgd, scheduler, epoch=epoch, epochs=epochs, seed=seed, precision=precision
            )
        network.eval()
        row["held_out_accuracy"] = accuracy(objective.predict, held_out, device)
        rows.append(row)
        on_epoch(rows)
        _report(row, epochs=epochs, images=len(batches) * batches.batch_size, seconds=time.perf_counter() - started)
    return rows


def _train_epoch(
    objective: Objective,
    batches: TrainingBatches,
    sgd: torch.optim.SGD,
    scheduler: torch.optim.lr_scheduler.LambdaLR,
    *,
    epoch: int,
    epochs: int,
    seed: int,
    precision: str,
) -> Row:
    """Run one epoch; return the means of the loss, its parts and the training accuracy."""
    objective.network.train()
    sums: dict[str, Tensor] = {}
    draws = batches.epoch(derive_seed(seed, "batches", epoch))
    for batch in tqdm(draws, desc=f"epoch {epoch + 1}/{epochs}", total=len(batches), leave=False, disable=None):
        with torch.autocast(batch.images.device.type, torch.bfloat16, enabled=precision == "bf16"):
            loss = objective(batch, epoch)
        sgd.zero_grad(set_to_none=True)
        torch.autograd.backward(loss.total)
        sgd.step()
        scheduler.step()
        correct = (loss.logits.argmax(dim=1) == batch.labels).float().mean()
        for name, value in {"loss": loss.total, **loss.parts, "train_accuracy": correct}.items():
            sums[name] = sums.get(name, 0) + value.detach()
    means = {name: float(value) / len(batches) for name, value in sums.items()}
    if not all(torch.isfinite(torch.tensor(list(means.values())))):
        figures = ", ".join(f"{name} {value:.4g}" for name, value in means.items())
        raise GateError(
            f"training diverged in epoch {epoch + 1} ({figures}); lower the learning rate or the loss weight"
        )
    return means


@contextlib.contextmanager
def _nondeterminism_explained() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        if "does not have a deterministic implementation" not in str(error):
            raise
        raise UserError(f"base.deterministic: got True, but {str(error).split('.')[0]}; set it to false") from error


@torch.no_grad()
def accuracy(predict: Callable[[Tensor], Tensor], split: Split, device: torch.device) -> float:
    """Return the share of ``split`` whose largest logit is the label's."""
    correct = [
        (predict(batch.images).argmax(dim=1) == batch.labels).sum()
        for batch in ordered_batches(split, EVALUATION_BATCH, device)
    ]
    return float(torch.stack(correct).sum()) / len(split)


def _report(row: Row, *, epochs: int, images: int, seconds: float) -> None:
    left = seconds * (epochs - row["epoch"])
    logger.info(
        "epoch %d/%d  loss %.4f  train %.2f%%  held out %.2f%%  %.0f images/s  about %.0f s left",
        row["epoch"], epochs, row["loss"], 100 * row["train_accuracy"], 100 * row["held_out_accuracy"],
        images / seconds, left,
    )  # fmt: skip
