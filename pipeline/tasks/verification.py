"""How a deployed network is verified: the same answers as the trained one, in every batch size, within its gate."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from pipeline.core.arrays import Outputs, Pixels, Truth, first_rows
from pipeline.core.errors import GateError
from pipeline.runtimes.base import Runtime, predict
from pipeline.tasks.base import Scores, Task
from pipeline.tasks.gate import PlacedGate
from pipeline.tasks.parity import Parity, Scale, ValueParity
from pipeline.tasks.significance import STANDARD_ERRORS, most_exceptions

TRAINED = "the trained network's answer"
BATCH_TOLERANCE = 0.2
"""Share of their spread by which outputs may differ between batch sizes: kernels round otherwise for each."""


@dataclass(frozen=True)
class Reference:
    """Images with what is right about them, and what the trained network answers."""

    task: Task
    pixels: Pixels
    """(N, 3, H, W)."""
    truth: Truth
    """Empty where a task is not scored on so few images."""
    outputs: Outputs
    """Of the trained network in float32, on the CPU."""

    def __len__(self) -> int:
        return len(self.pixels)

    @cached_property
    def scale(self) -> Scale:
        """Return by what differences from its outputs are measured."""
        return self.task.scale(self.outputs)


@dataclass(frozen=True)
class Verified:
    """What was found of a runtime."""

    scores: Scores | None
    """None: nothing is known of the images that they could be scored by."""
    standard_error: float | None
    """Of the primary score, on so many images; None as before."""
    parity: Parity
    drop: float | None
    """By how much the primary score lies below that of the trained network; None as before."""
    outputs: Outputs
    by_batch: dict[int, Parity]
    """Parity on the first images alone, by their number."""


def verify(
    runtime: Runtime,
    reference: Reference,
    gate: PlacedGate,
    *,
    what: str,
    batch_size: int,
    batch_sizes: Sequence[int] = (),
) -> Verified:
    """Run ``runtime`` on all images in batches of ``batch_size``, and on the first ones in each of ``batch_sizes``.

    Args:
        what: names the runtime in messages.
        batch_sizes: cut to the number of images.

    Raises:
        GateError: a difference, the agreement or the primary score is out of the bounds of ``gate``, or another batch
            size gives another answer; names ``what``, the figure, the bound and its key.
    """
    task, whole = reference.task, f"{what}, {len(reference)} images"
    outputs = predict(runtime, reference.pixels, batch_size)
    parity = compared(task, outputs, reference.outputs, reference.scale, whole)
    require_parity(parity, whole, gate)
    by_batch: dict[int, Parity] = {}
    for count in sorted({min(size, len(reference)) for size in batch_sizes}):
        part, scale = f"{what}, batch of {count}", reference.scale[:count]
        few = predict(runtime, reference.pixels[:count], count)
        by_batch[count] = compared(task, few, first_rows(reference.outputs, count), scale, part)
        require_difference(by_batch[count], part, gate)
        _require_same_in_batches(compared(task, few, first_rows(outputs, count), scale, part), part, gate)
    if not reference.truth:
        return Verified(None, None, parity, None, outputs, by_batch)
    drop = require_score(outputs, reference, whole, gate)
    scores, error = task.score(outputs, reference.truth), task.standard_error(outputs, reference.truth)
    return Verified(scores, error, parity, drop, outputs, by_batch)


def compared(task: Task, outputs: Outputs, reference: Outputs, scale: Scale, what: str) -> Parity:
    """Return how far ``outputs`` are from ``reference``; raises GateError that names ``what`` where they do not fit."""
    try:
        return task.compare(outputs, reference, scale)
    except GateError as error:
        raise GateError(f"{what}: {error}") from error


def scores_with_error(task: Task, outputs: Outputs, truth: Truth) -> dict[str, float]:
    """Return the scores of ``outputs``, and the standard error of the primary one by the task's name for it."""
    return {**task.score(outputs, truth), task.primary_error: task.standard_error(outputs, truth)}


def require_difference(found: Parity | ValueParity, what: str, gate: PlacedGate, *, values: str = "outputs") -> None:
    """Raise GateError, naming ``what`` and the figures, where ``values`` differ by more than ``gate`` allows."""
    allowed = gate.gate.max_difference
    if allowed is not None and found.difference is not None and found.difference > allowed:
        differ = f"{values} differ by {found.max_abs:.3g}, {found.difference:.3g} of their spread ({found.spread:.3g})"
        raise GateError(gate.refusal(f"{what}: {differ}", f"are {allowed:.3g} of it", "max_difference"))


def require_agreement(found: Parity, what: str, gate: PlacedGate, *, answer: str = TRAINED) -> None:
    """Raise GateError, naming ``what`` and the figures, where too many of those that are counted differ."""
    required, count = gate.gate.min_agreement, found.total
    others, most = round(count * (1 - found.agreement)), most_exceptions(count, 1 - required)
    if others > most:
        differ = f"{others} of {count} {found.counted} do not get {answer}"
        allowed = f"are {most}: {required:.2%} must get it, within chance"
        raise GateError(gate.refusal(f"{what}: {differ}", allowed, "min_agreement"))


def require_parity(found: Parity, what: str, gate: PlacedGate) -> None:
    """Raise GateError, naming ``what`` and the figures, where ``found`` is not good enough."""
    require_difference(found, what, gate)
    require_agreement(found, what, gate)


def require_score(outputs: Outputs, reference: Reference, what: str, gate: PlacedGate) -> float:
    """Return how far the primary score lies below the trained network's, as a fraction.

    Raises:
        GateError: it is more than ``gate`` allows, and chance does not explain it; names ``what`` and the figures.
    """
    task, allowed = reference.task, gate.gate.max_drop
    found = task.change(outputs, reference.outputs, reference.truth, allowed=allowed)
    if found.standard_errors_above > STANDARD_ERRORS:
        trained = f"below the trained network's {found.reference:.2%}"
        fell = f"{task.primary_in_words} {found.score:.2%} lies {found.drop:.2%} {trained}"
        counted = f"{found.counted}, {found.standard_errors_above:.1f} standard errors above the bound"
        raise GateError(gate.refusal(f"{what}: {fell} ({counted})", f"is {allowed:.2%}", "max_drop"))
    return found.drop


def _require_same_in_batches(found: Parity, what: str, gate: PlacedGate) -> None:
    """Raise GateError where the same images get other answers in another batch size."""
    if found.difference is None:
        require_agreement(found, what, gate, answer="the answer that another batch size gives")
    elif found.difference > BATCH_TOLERANCE:
        raise GateError(
            f"{what}: outputs differ by {found.max_abs:.3g}, {found.difference:.3g} of their spread, from those in "
            f"another batch size; allowed are {BATCH_TOLERANCE:g} of it"
        )
