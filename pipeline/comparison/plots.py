"""Plots of a comparison: score per method, score against steps, and the ensemble of the steps."""

import csv
import statistics
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from pipeline.comparison.plan import Trial
from pipeline.comparison.table import Row
from pipeline.core.plotting import new_figure, save_figure


def plot_all(
    folder: Path, trials: Sequence[Trial], rows: Sequence[Row], title: str, *, primary: str, score: str
) -> list[Path]:
    """Write score.svg, and where a method takes steps also steps.svg and ensemble.svg; return their paths.

    Args:
        primary: the score that decides, as columns of tables are called.
        score: the same for people: "top-1 accuracy".
    """
    y_title = f"{score} on the test split, %"
    paths = [save_figure(_scores(rows, title, y_title), folder / "score.svg")]
    flowing = [trial for trial in trials if _read(trial, "flow_by_num_steps.csv")]
    if flowing:
        paths.append(save_figure(_against_steps(flowing, rows, title, y_title, primary), folder / "steps.svg"))
        paths.append(save_figure(_ensemble(flowing, rows, title, y_title, primary), folder / "ensemble.svg"))
    return paths


def _scores(rows: Sequence[Row], title: str, y_title: str) -> Figure:
    """Each trial's score as a dot, each method's mean as a bar."""
    groups: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        groups[row["method"]].append(100 * row["score"])
    figure, axes = new_figure(title, y_title)
    for position, values in enumerate(groups.values()):
        axes.plot([position] * len(values), values, "o", color="tab:gray", alpha=0.7)
        axes.hlines(statistics.fmean(values), position - 0.3, position + 0.3, color="tab:blue", linewidth=3)
    axes.set_xticks(range(len(groups)), list(groups), rotation=30, ha="right")
    return figure


def _against_steps(trials: Sequence[Trial], rows: Sequence[Row], title: str, y_title: str, primary: str) -> Figure:
    """Score on the test split against the number of steps, a line for each method."""
    figure, axes = new_figure(title, y_title)
    for method in dict.fromkeys(trial.method for trial in trials):
        points: dict[int, list[float]] = defaultdict(list)
        for trial in trials:
            if trial.method == method:
                found = {int(line["num_steps"]): line[primary] for line in _read(trial, "flow_by_num_steps.csv")}
                for num_steps, value in found.items():  # flows at several stages share one score
                    points[num_steps].append(100 * float(value))
        _line(axes, points, _label(method, rows))
    axes.set_xscale("log", base=2)
    axes.set_xlabel("number of sampling steps K")
    axes.legend()
    return figure


def _ensemble(trials: Sequence[Trial], rows: Sequence[Row], title: str, y_title: str, primary: str) -> Figure:
    """Score of each step's own estimate and of their mean up to it; methods without steps as dashed lines."""
    figure, axes = new_figure(f"{title}\neach step (thin) and the mean up to it", y_title)
    for number, method in enumerate(dict.fromkeys(trial.method for trial in trials)):
        mean_style = {"linewidth": 2.5, "label": _label(method, rows)}
        for column, style in ((f"step_{primary}", {"linewidth": 1}), (f"ensemble_{primary}", mean_style)):
            points: dict[int, list[float]] = defaultdict(list)
            for trial in trials:
                if trial.method == method:
                    for line in _read(trial, "flow_steps.csv"):
                        points[int(line["step"])].append(100 * float(line[column]))
            means = [statistics.fmean(values) for _, values in sorted(points.items())]
            axes.plot(sorted(points), means, marker="o", color=f"C{number}", **style)
    plain = [row["method"] for row in rows if row["num_steps"] is None]
    for number, method in enumerate(dict.fromkeys(plain)):
        mean = statistics.fmean(100 * row["score"] for row in rows if row["method"] == method)
        axes.axhline(mean, linestyle="--", color=f"C{9 - number}", linewidth=1, label=method)
    axes.set_xlabel("step")
    axes.legend(fontsize="small", loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def _label(method: str, rows: Sequence[Row]) -> str:
    """Return the name under which the flow of ``method`` is drawn: it deploys, or only helped in training."""
    deploys = any(row["num_steps"] is not None for row in rows if row["method"] == method)
    return method if deploys else f"{method}: its adapter flow"


def _line(axes: Any, points: dict[int, list[float]], name: str) -> None:
    """Draw means over the seeds with their standard deviations."""
    xs = sorted(points)
    spread = [statistics.stdev(points[x]) if len(points[x]) > 1 else 0.0 for x in xs]
    axes.errorbar(xs, [statistics.fmean(points[x]) for x in xs], spread, marker="o", capsize=3, label=name)


def _read(trial: Trial, name: str) -> list[dict[str, str]]:
    with (trial.folder / name).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
