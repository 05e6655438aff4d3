"""Theorem 3.1 in one line, from a row of ``reports/likelihood.csv``."""

from collections.abc import Mapping

LIKELIHOOD = "likelihood.csv"
"""The row of the deployed number of steps, beside what else a model card shows."""


def likelihood_line(row: Mapping[str, str]) -> str:
    """Return what the figures of one flow with one number of steps say, for people.

    ``row`` has the columns of ``pipeline.evaluation.likelihood``; all figures are of the test split.
    """
    bound, trivial, ensemble, diversity = (float(row[key]) for key in ("bound", "trivial", "ensemble", "diversity"))
    return (
        f"theorem 3.1, given the student, what the teacher says costs at most {bound:.4g} nats an image ("
        f"{float(row['bound_bits']):.3g} bits per dimension), against {trivial:.4g} by its mean; the mean of the "
        f"steps costs {ensemble:.4g}, the rest is the diversity of the steps, {diversity:.3g}"
    )
