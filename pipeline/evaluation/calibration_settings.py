"""Settings of the stage ``calibrate_steps``."""

from typing import Literal

from pipeline.core.settings import Counts, NonNegative, Positive, Section, knob

Criterion = Literal["score", "bound"]


def criterion_fault(criterion: Criterion, method: str, *, has_teacher: bool) -> str | None:
    """Return why ``criterion`` cannot decide about students of ``method``; None where it can."""
    if criterion == "bound" and not has_teacher:
        return (
            f"calibrate_steps.criterion: got bound, but method {method!r} has no teacher to be likely of; set it to "
            "score"
        )
    return None


class CalibrateSteps(Section):
    """How the number of sampling steps is chosen."""

    candidates: Counts = knob((1, 2, 4, 8), "numbers of steps to try")
    criterion: Criterion = knob(
        "score",
        "what decides: the task's score, or the bound on the teacher's negative log-likelihood (theorem 3.1)",
    )
    tolerance: NonNegative = knob(
        0.005,
        "the fewest steps win whose score is within this of the best; of the bound: whose gain over the mean of the "
        "teacher's outputs is within this share of the best gain",
    )
    max_latency_ms: Positive | None = knob(
        None, "a budget for one image in eager PyTorch; null: latency is shown and decides nothing"
    )
