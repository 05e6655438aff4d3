"""How a deployed network is verified: the same answers as the trained one, in every batch size, within its gate."""

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.core.arrays import Outputs, Pixels, Truth, first_rows
from pipeline.core.errors import GateError
from pipeline.runtimes.base import Runtime, predict
from pipeline.tasks.base import Parity, Scores, Task
from pipeline.tasks.gate import Gate

BATCH_TOLERANCE = 0.05
"""Share of the largest output that may differ between batch sizes: kernels round otherwise for each."""
ROUNDING = 1e-9
"""What two scores may differ by and still be compared as equal: they are fractions of whole images."""


@dataclass(frozen=True)
class Reference:
    """Images with what is right about them, and what the trained network answers."""

    task: Task
    pixels: Pixels
    """(N, 3, H, W)."""
    truth: Truth
    outputs: Outputs
    """Of the trained network in float32, on the CPU."""

    def __len__(self) -> int:
        return len(self.pixels)


@dataclass(frozen=True)
class Verified:
    """What was found of a runtime."""

    scores: Scores
    parity: Parity
    drop: float
    """By how much the primary score lies below that of the trained network."""
    outputs: Outputs
    by_batch: dict[int, Parity]
    """Parity on the first images alone, by their number."""


def verify(
    runtime: Runtime, reference: Reference, gate: Gate, *, what: str, batch_size: int, batch_sizes: Sequence[int] = ()
) -> Verified:
    """Run ``runtime`` on all images in batches of ``batch_size``, and on the first ones in each of ``batch_sizes``.

    Args:
        what: names the runtime in messages.
        batch_sizes: cut to the number of images.

    Raises:
        GateError: a difference, the agreement or the primary score is out of the bounds of ``gate``, or another batch
            size gives another answer; names ``what`` and the figure.
    """
    task, whole = reference.task, f"{what}, {len(reference)} images"
    outputs = predict(runtime, reference.pixels, batch_size)
    by_batch: dict[int, Parity] = {}
    for count in sorted({min(size, len(reference)) for size in batch_sizes}):
        few = predict(runtime, reference.pixels[:count], count)
        by_batch[count] = task.compare(few, first_rows(reference.outputs, count))
        require_difference(by_batch[count], f"{what}, batch of {count}", gate)
        _require_same_in_batches(task, few, first_rows(outputs, count), f"{what}, batch of {count}")
    parity = task.compare(outputs, reference.outputs)
    require_parity(parity, whole, gate)
    scores = task.score(outputs, reference.truth)
    drop = require_score(task, scores, reference, whole, gate)
    return Verified(scores, parity, drop, outputs, by_batch)


def require_difference(found: Parity, what: str, gate: Gate) -> None:
    """Raise GateError, naming ``what`` and the figures, where outputs differ by more than ``gate`` allows."""
    if gate.max_abs_diff is None:
        return
    allowed = gate.max_abs_diff + gate.max_relative_diff * found.largest_logit
    if found.max_abs > allowed:
        raise GateError(
            f"{what}: outputs differ by {found.max_abs:.3g}, allowed are {allowed:.3g} "
            f"(max_abs_diff + max_relative_diff x {found.largest_logit:.3g}, the largest output)"
        )


def require_parity(found: Parity, what: str, gate: Gate) -> None:
    """Raise GateError, naming ``what`` and the figures, where ``found`` is not as good as ``gate`` demands."""
    require_difference(found, what, gate)
    if found.top1_agreement < gate.min_top1_agreement:
        raise GateError(
            f"{what}: {found.top1_agreement:.2%} get the trained network's answer, "
            f"required: {gate.min_top1_agreement:.2%}"
        )


def require_score(task: Task, scores: Scores, reference: Reference, what: str, gate: Gate) -> float:
    """Return how far the primary score lies below the trained network's, as a fraction.

    Raises:
        GateError: it is more than ``gate`` allows; names ``what`` and the figures.
    """
    trained, score = task.score(reference.outputs, reference.truth)[task.primary], scores[task.primary]
    drop = trained - score
    if drop > gate.max_drop + ROUNDING:
        raise GateError(
            f"{what}: {task.primary} {score:.2%} lies {drop:.2%} below the trained network's {trained:.2%}; "
            f"allowed is {gate.max_drop:.2%} (max_drop)"
        )
    return drop


def _require_same_in_batches(task: Task, some: Outputs, others: Outputs, what: str) -> None:
    """Raise GateError where ``some`` are not the answers that the same images get in another batch size."""
    found = task.compare(some, others)
    if found.max_relative > BATCH_TOLERANCE:
        raise GateError(f"{what}: outputs differ by {found.max_abs:.3g} from those in another batch size")
