"""The values that a comparison chooses for each method on the calibration split, with seeds that no table shows."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from pipeline.comparison.config import Changes, Comparison, described
from pipeline.comparison.results import Result, tuning_runs
from pipeline.core.errors import GateError

COLUMNS = ("method", "values", "seed", "calib_score", "num_steps", "chosen")


class Tried(NamedTuple):
    """What values brought a method."""

    values: Changes
    score: float | None
    """The mean over the seeds on the calibration split, with the calibrated number of steps; None: a run diverged."""


def tried(comparison: Comparison, results: Sequence[Result], primary: str) -> dict[str, list[Tried]]:
    """Return from each tuned method to what all values brought it, in the order of the comparison's file.

    Args:
        results: of the runs that tune, all of them, and of the trials that diverged.
        primary: the score that decides.
    """
    return {
        method: [
            Tried(values, _mean([r.calib_score(primary) for r in tuning_runs(results, method, values)]))
            for values in comparison.tried_values
        ]
        for method in comparison.tuned_methods
    }


def choose(found: Mapping[str, Sequence[Tried]]) -> dict[str, Changes]:
    """Return from each method to its best values; of equal ones those that stand first.

    Raises:
        GateError: with all values that were tried of a method its training diverged.
    """
    return {method: _best(method, tries) for method, tries in found.items()}


def _best(method: str, tries: Sequence[Tried]) -> Changes:
    scored = [(one.score, one.values) for one in tries if one.score is not None]
    if not scored:
        said = "; ".join(described(one.values) for one in tries)
        raise GateError(f"{method}: its training diverged with all values that tune has ({said}); try smaller ones")
    return max(scored, key=lambda pair: pair[0])[1]


def at_an_end(comparison: Comparison, chosen: Changes) -> bool:
    """Return whether one of the ``chosen`` values is a number, and the smallest or largest that was tried."""
    return any(
        all(isinstance(one, int | float) for one in comparison.tune[key])
        and value in {min(comparison.tune[key]), max(comparison.tune[key])}
        for key, value in chosen.items()
        if not isinstance(value, bool)
    )


def _mean(scores: Sequence[float | None]) -> float | None:
    found = [score for score in scores if score is not None]
    return statistics.fmean(found) if len(found) == len(scores) else None


def tuning_rows(results: Sequence[Result], chosen: Mapping[str, Changes], primary: str) -> list[dict[str, Any]]:
    """Return a row (see ``COLUMNS``) for each run that tunes."""
    return [
        {
            "method": result.method,
            "values": described(result.values),
            "seed": result.seed,
            "calib_score": result.calib_score(primary),
            "num_steps": result.curve_point()["num_steps"] if result.calibration else None,
            "chosen": int(chosen[result.method] == result.values),
        }
        for result in results
    ]
