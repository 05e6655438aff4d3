"""Figures of one look, whose bytes depend on what they show alone."""

import textwrap
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from matplotlib import get_data_path, rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import ScalarFormatter

MARGIN = 0.15
FONT = Path(get_data_path(), "fonts/ttf/DejaVuSans.ttf")
"""The font of figures, for pictures that are drawn by other means."""


WIDEST = 72
"""Characters of a title's line that are as wide as a figure."""


def new_figure(title: str, y_title: str) -> tuple[Figure, Any]:
    """Return an empty figure with ``title`` and its axes, whose vertical one is called ``y_title``."""
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot()
    lines = [part for line in title.split("\n") for part in textwrap.wrap(line, WIDEST)]
    axes.set_title("\n".join(lines), parse_math=False)
    axes.set_ylabel(y_title)
    axes.grid(visible=True, alpha=0.3)
    axes.margins(y=MARGIN)
    return figure, axes


def count_steps(axes: Any, places: Iterable[float]) -> None:
    """Let the horizontal axis be a number of steps: doublings are equally far apart, 0 has a place beside 1.

    Args:
        places: where something is drawn, each of which gets a mark.
    """
    axes.set_xscale("symlog", base=2, linthresh=1)
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.set_xticks(sorted(set(places)))
    axes.minorticks_off()


def save_figure(figure: Figure, path: Path) -> Path:
    """Write ``figure`` as ``path`` and return that."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with rc_context({"svg.hashsalt": path.stem}):  # the same content gives the same bytes
        figure.savefig(path, metadata={"Date": None})
    return path
