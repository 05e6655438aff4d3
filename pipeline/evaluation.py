"""One judgement for every runtime: accuracy, and parity with the trained network."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from pipeline.data.store import Split
from pipeline.errors import GateError
from pipeline.files import Json
from pipeline.metrics import ROUNDING, Labels, Logits, Scores, score
from pipeline.parity import Parity, compare, require_parity
from pipeline.runtimes.base import Runtime, image_batches, predict
from pipeline.runtimes.torch import TorchRuntime


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
    return predict(runtime, split, batch_size)


def evaluate(runtime: Runtime, split: Split, reference: Logits, batch_size: int) -> Evaluation:
    """Return scores and parity of ``runtime`` on ``split``; ``reference`` (N, classes): the trained logits."""
    logits = predict(runtime, split, batch_size)
    return Evaluation(score(logits, split.labels.numpy()), compare(logits, reference), logits)


def require_equal(
    found: Evaluation,
    reference: Logits,
    labels: Labels,
    *,
    max_drop: float,
    max_abs_diff: float,
    min_top1_agreement: float,
) -> None:
    """Raise GateError where the runtime is less accurate than the trained network by more than ``max_drop``.

    Likewise where its logits differ by more than ``max_abs_diff``, or its labels agree too rarely.
    """
    trained = score(reference, labels).accuracy
    drop = trained - found.scores.accuracy
    if drop > max_drop + ROUNDING:
        raise GateError(
            f"accuracy {found.scores.accuracy:.2%} lies {drop:.2%} below the trained network's {trained:.2%}; "
            f"allowed is {max_drop:.2%} (evaluate.max_drop)"
        )
    require_parity(
        found.parity, "evaluate, test split", max_abs_diff=max_abs_diff, min_top1_agreement=min_top1_agreement
    )


def prove(
    runtime: Runtime,
    split: Split,
    reference: Logits,
    *,
    what: str,
    batch_sizes: Sequence[int],
    max_abs_diff: float,
    min_top1_agreement: float,
) -> Json:
    """Run the gates of an export and return their figures, for each batch size and for the whole split.

    Each batch size is tried on the first images of ``split``, cut to its length; the whole split runs in batches of the
    largest size.

    Raises:
        GateError: a difference or agreement is out of bounds; names the figure.
    """
    figures: Json = {}
    for size in batch_sizes:
        count = min(size, len(split))
        first = next(image_batches(split, count))
        found = compare(runtime.run(first), reference[:count])
        require_parity(found, f"{what}, batch of {count}", max_abs_diff=max_abs_diff, min_top1_agreement=0.0)
        figures[f"batch_{count}"] = found._asdict()
    whole = compare(predict(runtime, split, max(batch_sizes)), reference)
    require_parity(whole, f"{what}, test split", max_abs_diff=max_abs_diff, min_top1_agreement=min_top1_agreement)
    return figures | {"test_split": whole._asdict() | {"num_images": len(split)}}
