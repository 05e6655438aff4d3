"""One judgement for every runtime: accuracy, and parity with the trained network."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from pipeline.core.files import Json
from pipeline.data.dataset import Split
from pipeline.runtimes.base import Pixels, Runtime, predict
from pipeline.runtimes.torch import TorchRuntime
from pipeline.tasks.classification.metrics import Labels, Logits, Scores, score
from pipeline.tasks.classification.parity import (
    Gate,
    Parity,
    compare,
    require_accuracy,
    require_difference,
    require_parity,
    require_same_in_batches,
)


@dataclass(frozen=True)
class Evaluation:
    """How a runtime does on a split."""

    scores: Scores
    parity: Parity
    logits: Logits

    def report(self) -> Json:
        """Return accuracy, nll, ece, num_images and parity."""
        return {**self.scores._asdict(), "num_images": len(self.logits), "parity": self.parity._asdict()}


def trained_logits(student: nn.Module, num_steps: int | None, split: Split, batch_size: int) -> Logits:
    """Return the logits (N, classes) of the trained network in its general form, in float32 on the CPU.

    Every deployed form is compared with these.
    """
    steps = () if num_steps is None else (num_steps,)
    runtime = TorchRuntime(lambda images: student(images, *steps), device=torch.device("cpu"))
    return predict(runtime, split.pixels, batch_size)


def evaluate(runtime: Runtime, split: Split, reference: Logits, batch_size: int) -> Evaluation:
    """Return scores and parity of ``runtime`` on ``split``; ``reference`` (N, classes): the trained logits."""
    logits = predict(runtime, split.pixels, batch_size)
    return Evaluation(score(logits, split.labels.numpy()), compare(logits, reference), logits)


def check_gate(found: Evaluation, reference: Logits, labels: Labels, what: str, gate: Gate) -> None:
    """Raise GateError, naming ``what`` and the figure, where the runtime is not as ``gate`` demands."""
    require_accuracy(found.logits, reference, labels, what, gate)
    require_parity(found.parity, what, gate)


def verify_export(
    runtime: Runtime,
    pixels: Pixels,
    labels: Labels,
    reference: Logits,
    *,
    what: str,
    batch_sizes: Sequence[int],
    gate: Gate,
) -> Json:
    """Run the gates of an export and return their figures, for each batch size and for all images.

    Each batch size is tried on the first of the images ``pixels`` (N, 3, H, W), cut to their number; all of them run in
    batches of the largest size. ``reference`` (N, classes): the trained logits.

    Raises:
        GateError: a difference, an agreement or the accuracy is out of bounds; names ``what`` and the figure.
    """
    figures: Json = {}
    logits = predict(runtime, pixels, max(batch_sizes))
    for count in sorted({min(size, len(pixels)) for size in batch_sizes}):
        few = predict(runtime, pixels[:count], count)
        found = compare(few, reference[:count])
        require_difference(found, f"{what}, batch of {count}", gate)
        require_same_in_batches(few, logits, f"{what}, batch of {count}")
        figures[f"batch_{count}"] = found._asdict()
    whole = compare(logits, reference)
    require_parity(whole, f"{what}, test split", gate)
    drop = require_accuracy(logits, reference, labels, f"{what}, test split", gate)
    accuracy = score(logits, labels).accuracy
    return figures | {"test_split": {**whole._asdict(), "accuracy": accuracy, "drop": drop, "num_images": len(pixels)}}
