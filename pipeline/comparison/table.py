"""The result of a comparison as a table: each method's mean over its seeds, and its gain over the baseline."""

import statistics
from collections.abc import Sequence
from typing import Any

from pipeline.comparison.plan import Trial
from pipeline.core.files import Json

COLUMNS = ("method", "score", "std", "n", "gain", "gain_std", "num_steps", "macs", "parameters", "train_seconds")
Row = dict[str, Any]


def trial_rows(trials: Sequence[Trial], primary: str) -> list[Row]:
    """Return a row for each finished trial: its score on the test split at the calibrated steps, and what it costs.

    Args:
        primary: the score that decides, e.g. ``accuracy``.
    """
    return [_trial_row(trial, primary) for trial in trials]


def _trial_row(trial: Trial, primary: str) -> Row:
    calibration: Json = trial.report("calibration/calibration.json")
    chosen = next(p for p in calibration["curve"] if p["num_steps"] == calibration["num_steps"])
    return {
        "method": trial.method,
        "seed": trial.seed,
        "score": trial.report("scores.json")[primary],
        "num_steps": calibration["num_steps"],
        "macs": chosen["macs"],
        "parameters": trial.report("student/network.json")["num_parameters"],
        "train_seconds": trial.report("done.json")["seconds"],
    }


def summarize_methods(rows: Sequence[Row], baseline: str) -> list[Row]:
    """Return a row (see ``COLUMNS``) for each method, in the order of their first trials.

    ``score`` and ``gain`` are means over the seeds, ``std`` and ``gain_std`` sample standard deviations (n - 1; None
    for one seed). A gain is that over the baseline with the same seed. ``macs`` is the mean, since K may differ.
    """
    base = {row["seed"]: row["score"] for row in rows if row["method"] == baseline}
    found = []
    for method in dict.fromkeys(row["method"] for row in rows):
        own = [row for row in rows if row["method"] == method]
        gains = [row["score"] - base[row["seed"]] for row in own]
        steps = sorted({row["num_steps"] for row in own if row["num_steps"] is not None})
        found.append(
            {
                "method": method,
                "score": statistics.fmean(row["score"] for row in own),
                "std": _std([row["score"] for row in own]),
                "n": len(own),
                "gain": statistics.fmean(gains),
                "gain_std": _std(gains),
                "num_steps": " ".join(map(str, steps)),
                "macs": round(statistics.fmean(row["macs"] for row in own)),
                "parameters": own[0]["parameters"],
                "train_seconds": statistics.fmean(row["train_seconds"] for row in own),
            }
        )
    return found


def markdown(rows: Sequence[Row], baseline: str, score: str) -> str:
    """Return the table as Markdown, scores and gains in percent; ``score`` is what they are: "top-1 accuracy"."""
    header = [
        "method",
        f"{score}, %",
        "std",
        "n",
        f"gain over {baseline}",
        "K",
        "multiply-adds",
        "parameters",
        "s per run",
    ]
    escaped = "\\|"
    lines = [header, ["---"] + ["---:"] * (len(header) - 1)]
    for row in rows:
        spread = "" if row["gain_std"] is None else f" ± {100 * row['gain_std']:.2f}"
        lines.append(
            [
                row["method"],
                f"{100 * row['score']:.2f}",
                "" if row["std"] is None else f"{100 * row['std']:.2f}",
                str(row["n"]),
                f"{100 * row['gain']:+.2f}{spread}",
                row["num_steps"],
                f"{row['macs']:,}",
                f"{row['parameters']:,}",
                f"{row['train_seconds']:.0f}",
            ]
        )
    return "\n".join(f"| {' | '.join(cell.replace('|', escaped) for cell in line)} |" for line in lines)


def _std(values: Sequence[float]) -> float | None:
    return statistics.stdev(values) if len(values) > 1 else None
