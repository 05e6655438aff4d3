"""Theorem 3.1 for people: the rows of ``reports/likelihood.csv`` over all flows of a student, and in one line."""

import math
from collections.abc import Iterable, Mapping

Row = Mapping[str, str]
LIKELIHOOD = "likelihood.csv"
"""The row of the deployed number of steps, beside what else a model card shows."""
SUMMED = ("bound", "mixture", "ensemble", "diversity", "trivial")
"""What adds up over flows: each has a target of its own, in nats per image."""


def over_flows(rows: Iterable[Row]) -> list[Row]:
    """Return a row for each number of steps: that of the one flow, or the sum over several.

    Args:
        rows: those of ``pipeline.evaluation.likelihood``, one for each flow and number of steps.
    """
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row["num_steps"], []).append(row)
    return [group[0] if len(group) == 1 else _added_up(group) for group in groups.values()]


def _added_up(rows: list[Row]) -> Row:
    sums = {key: sum(float(row[key]) for row in rows) for key in SUMMED}
    dims = sum(int(row["dims"]) for row in rows)
    figures = sums | {"bound_bits": sums["bound"] / (dims * math.log(2))}
    names = {"flow": " and ".join(row["flow"] for row in rows), "num_steps": rows[0]["num_steps"], "dims": str(dims)}
    return names | {key: f"{value:.6g}" for key, value in figures.items()}


def likelihood_of(rows: Iterable[Row], num_steps: int | None) -> Row | None:
    """Return the row over all flows with ``num_steps``; None where there is none."""
    return next((row for row in over_flows(rows) if row["num_steps"] == str(num_steps)), None)


def likelihood_line(row: Row) -> str:
    """Return what the figures of one number of steps say; all are of the test split."""
    bound, trivial, ensemble, diversity = (float(row[key]) for key in ("bound", "trivial", "ensemble", "diversity"))
    return (
        f"theorem 3.1, given the student, what the teacher says costs at most {bound:.4g} nats an image ("
        f"{float(row['bound_bits']):.3g} bits per dimension), against {trivial:.4g} by its mean; the mean of the "
        f"steps costs {ensemble:.4g}, the rest is the diversity of the steps, {diversity:.3g}"
    )
