"""Lines over epochs and steps."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from pipeline.core.plotting import count_steps, new_figure, save_figure
from pipeline.tasks.base import Row

MARKED = 30
"""Points up to which each is marked."""


class Line(NamedTuple):
    """A line of a chart."""

    name: str
    """Says the network and the split."""
    x: list[float]
    y: list[float]
    error: list[float] | None = None
    """The standard error of each y."""


class Chart(NamedTuple):
    """Lines over the same axis."""

    title: str
    x_title: str
    y_title: str
    lines: list[Line]
    counts_steps: bool = False
    """Whether the axis is a number of steps, whose doublings are equally far apart."""


def column_line(name: str, rows: Sequence[Row], x: str, y: str, *, scale: float = 1.0) -> Line:
    """Return the columns ``x`` and ``y`` of ``rows`` as a line, ``y`` times ``scale``; gaps do not count."""
    found = [(float(row[x]), scale * float(row[y])) for row in rows if row[x] and row[y]]
    return Line(name, [place for place, _ in found], [value for _, value in found])


def plot_chart(chart: Chart, path: Path) -> bool:
    """Plot ``chart``; returns whether there was anything to plot, and writes nothing otherwise."""
    lines = [line for line in chart.lines if line.x]
    if not lines:
        return False
    figure, axes = new_figure(chart.title, chart.y_title)
    for line, marker in zip(lines, "os^Dv", strict=False):
        shown = marker if len(line.x) <= MARKED else ""
        axes.errorbar(line.x, line.y, yerr=line.error, marker=shown, capsize=3, alpha=0.9, label=line.name)
    axes.set_xlabel(chart.x_title)
    if chart.counts_steps:
        count_steps(axes, (x for line in lines for x in line.x))
    axes.legend(fontsize="small")
    save_figure(figure, path)
    return True
