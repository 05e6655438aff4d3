"""Plots of a comparison: scores of the methods, over epochs, against steps, and of the members of ensembles."""

import statistics
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from pipeline.comparison.results import Result
from pipeline.comparison.table import Row
from pipeline.core.plotting import count_steps, new_figure, save_figure

Points = dict[int, list[float]]
"""From a place on the horizontal axis to a value for each seed."""
SPREAD = "mean and standard deviation over the seeds"


def plot_all(
    folder: Path, results: Sequence[Result], rows: Sequence[Row], title: str, *, primary: str, score: str
) -> list[Path]:
    """Write the plots for which there are figures into ``folder``; return their paths.

    These are score.svg; epochs.svg where something was trained; steps.svg and ensemble.svg where a method takes steps;
    members.svg where one answers with the mean of several.

    Args:
        rows: of the trials in ``results``.
        primary: the score that decides, as columns of tables are called.
        score: the same for people: "top-1 accuracy".
    """
    y_title = f"{score} on the test split, %"
    figures = {"score": _scores(rows, title, y_title)}
    if _with_table(results, "history"):
        held_out = f"{score} on the calibration split, %"
        figures["epochs"] = _over_epochs(_with_table(results, "history"), title, held_out, primary)
    flowing = _with_table(results, "flow_by_num_steps")
    if flowing:
        figures["steps"] = _against_steps(flowing, rows, title, y_title, primary)
        figures["ensemble"] = _ensemble(flowing, rows, title, y_title, primary)
    if _with_table(results, "ensemble"):
        figures["members"] = _members(results, rows, title, y_title)
    return [save_figure(figure, folder / f"{name}.svg") for name, figure in figures.items()]


def _with_table(results: Sequence[Result], name: str) -> list[Result]:
    """Return those of ``results`` whose table ``name`` has rows."""
    return [result for result in results if result.tables.get(name)]


def _methods(results: Sequence[Result]) -> list[str]:
    return list(dict.fromkeys(result.method for result in results))


def _points(results: Sequence[Result], method: str, table: str, x: str, y: str) -> Points:
    """Return the column ``y`` in percent by the column ``x`` of a table of ``method``, a value for each seed."""
    points: Points = defaultdict(list)
    for result in results:
        if result.method == method:
            found = {int(line[x]): line[y] for line in result.tables[table]}  # flows at several stages share one score
            for place, value in found.items():
                points[place].append(100 * float(value))
    return points


def _scores(rows: Sequence[Row], title: str, y_title: str) -> Figure:
    """Each trial's score as a dot, each method's mean as a bar."""
    groups: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        groups[row["method"]].append(100 * row["score"])
    figure, axes = new_figure(title, y_title)
    for position, values in enumerate(groups.values()):
        axes.plot([position] * len(values), values, "o", color="tab:gray", alpha=0.7)
        axes.hlines(statistics.fmean(values), position - 0.3, position + 0.3, color="tab:blue", linewidth=3)
    _name_places(axes, list(groups))
    return figure


def _name_places(axes: Any, names: Sequence[str]) -> None:
    axes.set_xticks(range(len(names)), names, rotation=30, ha="right")


def _over_epochs(results: Sequence[Result], title: str, y_title: str, primary: str) -> Figure:
    """Score on the calibration split after each epoch, a line for each method (the paper's figure 3)."""
    figure, axes = new_figure(f"{title}\n{SPREAD}", y_title)
    for method in _methods(results):
        points = _points(results, method, "history", "epoch", f"val_{primary}")
        xs = sorted(points)
        means = [statistics.fmean(points[x]) for x in xs]
        spread = [_std(points[x]) for x in xs]
        [line] = axes.plot(xs, means, label=method)
        low, high = ([m + sign * s for m, s in zip(means, spread, strict=True)] for sign in (-1, 1))
        axes.fill_between(xs, low, high, color=line.get_color(), alpha=0.15, linewidth=0)
    axes.set_xlabel("epoch")
    axes.legend()
    return figure


def _against_steps(results: Sequence[Result], rows: Sequence[Row], title: str, y_title: str, primary: str) -> Figure:
    """Score on the test split against the number of steps, a line for each method."""
    figure, axes = new_figure(title, y_title)
    shown = set[int]()
    for method in _methods(results):
        points = _points(results, method, "flow_by_num_steps", "num_steps", primary)
        xs = sorted(points)
        shown.update(xs)
        means = [statistics.fmean(points[x]) for x in xs]
        axes.errorbar(xs, means, [_std(points[x]) for x in xs], marker="o", capsize=3, label=_label(method, rows))
    count_steps(axes, shown)
    axes.set_xlabel("number of sampling steps K")
    axes.legend()
    return figure


def _ensemble(results: Sequence[Result], rows: Sequence[Row], title: str, y_title: str, primary: str) -> Figure:
    """Score of each step's own estimate and of their mean up to it; methods without steps as dashed lines."""
    figure, axes = new_figure(f"{title}\neach step (thin) and the mean up to it", y_title)
    for number, method in enumerate(_methods(results)):
        mean_style = {"linewidth": 2.5, "label": _label(method, rows)}
        for column, style in ((f"step_{primary}", {"linewidth": 1}), (f"ensemble_{primary}", mean_style)):
            points = _points(results, method, "flow_steps", "step", column)
            means = [statistics.fmean(values) for _, values in sorted(points.items())]
            axes.plot(sorted(points), means, marker="o", color=f"C{number}", **style)
    plain = [row["method"] for row in rows if row["num_steps"] is None]
    for number, method in enumerate(dict.fromkeys(plain)):
        mean = statistics.fmean(100 * row["score"] for row in rows if row["method"] == method)
        axes.axhline(mean, linestyle="--", color=f"C{9 - number}", linewidth=1, label=method)
    axes.set_xlabel("step")
    axes.legend(fontsize="small", loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def _members(results: Sequence[Result], rows: Sequence[Row], title: str, y_title: str) -> Figure:
    """Of each ensemble its members, their mean and the best alone, beside methods that are none (figure 5)."""
    figure, axes = new_figure(f"{title}\nmembers of ensembles, at the largest number of steps", y_title)
    shown: dict[str, Any] = {}
    names = _methods(results)
    for position, method in enumerate(names):
        own = [result for result in results if result.method == method]
        tables = [{row["member"]: row for row in one.tables["ensemble"]} for one in own if one.tables.get("ensemble")]
        if not tables:
            mean = statistics.fmean(100 * row["score"] for row in rows if row["method"] == method)
            shown["not an ensemble"] = axes.hlines(mean, position - 0.3, position + 0.3, color="tab:gray", linewidth=3)
            continue
        found = {name: statistics.fmean(100 * float(table[name]["accuracy"]) for table in tables) for name in tables[0]}
        mean, best = found.pop("mean"), found.pop("best")
        places = [position - 0.25 + 0.5 * i / max(len(found) - 1, 1) for i in range(len(found))]
        [shown["each step, or head, alone"]] = axes.plot(places, [*found.values()], "o", color="tab:orange")
        shown["their mean"] = axes.hlines(mean, position - 0.3, position + 0.3, color="tab:blue", linewidth=3)
        [shown["the best alone, chosen on the calibration split"]] = axes.plot(
            [position], [best], "D", color="tab:green", markerfacecolor="none"
        )
    flowing = set(_methods(_with_table(results, "flow_by_num_steps")))
    _name_places(axes, [_label(name, rows) if name in flowing else name for name in names])
    axes.legend([*shown.values()], [*shown], fontsize="small")
    return figure


def _label(method: str, rows: Sequence[Row]) -> str:
    """Return the name under which the flow of ``method`` is drawn: it deploys, or only helped in training."""
    deploys = any(row["num_steps"] is not None for row in rows if row["method"] == method)
    return method if deploys else f"{method}: its adapter flow"


def _std(values: Sequence[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else 0.0
