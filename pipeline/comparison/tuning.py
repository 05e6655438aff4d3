"""The values that a comparison chooses for each method on the calibration split, with seeds that no table shows."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from pipeline.comparison.config import Changes, Comparison, described
from pipeline.comparison.results import Result, tuning_runs

COLUMNS = ("method", "values", "seed", "calib_score", "num_steps", "chosen")


class Tried(NamedTuple):
    """What values brought a method."""

    values: Changes
    score: float
    """The mean over the seeds on the calibration split, with the calibrated number of steps."""


def tried(comparison: Comparison, results: Sequence[Result], primary: str) -> dict[str, list[Tried]]:
    """Return from each tuned method to what all values brought it, in the order of the comparison's file.

    Args:
        results: of the runs that tune, all of them.
        primary: the score that decides.
    """
    return {
        method: [
            Tried(values, statistics.fmean(r.curve_point()[primary] for r in tuning_runs(results, method, values)))
            for values in comparison.tried_values
        ]
        for method in comparison.tuned_methods
    }


def choose(found: Mapping[str, Sequence[Tried]]) -> dict[str, Changes]:
    """Return from each method to its best values; of equal ones those that stand first."""
    return {method: max(tries, key=lambda one: one.score).values for method, tries in found.items()}


def tuning_rows(results: Sequence[Result], chosen: Mapping[str, Changes], primary: str) -> list[dict[str, Any]]:
    """Return a row (see ``COLUMNS``) for each run that tunes."""
    return [
        {
            "method": result.method,
            "values": described(result.values),
            "seed": result.seed,
            "calib_score": result.curve_point()[primary],
            "num_steps": result.calibration["num_steps"],
            "chosen": int(chosen[result.method] == result.values),
        }
        for result in results
    ]
