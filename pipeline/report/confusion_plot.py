"""What is taken for what, as a picture: a square with every class."""

from pathlib import Path

import numpy as np

from pipeline.core.plotting import new_figure, save_figure
from pipeline.tasks.base import Confusion

NUMBERED = 20
"""Classes up to which each cell says its count."""
NAMED = 40
"""Classes up to which each has its name on the axes; of more, some are named."""
SIDE = 4.0
"""Inches of a small picture; classes with names make it larger."""
INCHES = 0.18


def plot_confusion(confusion: Confusion, path: Path, *, title: str) -> None:
    """Plot the share of what is counted of each class that is taken for each class; rows are what is right."""
    names, counts = confusion.names, confusion.counts
    shares = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure, axes = new_figure(title, "truth")
    side = SIDE + INCHES * min(len(names), NAMED)
    figure.set_size_inches(side + 1, side)
    shown = axes.imshow(shares, cmap="Blues", vmin=0, vmax=100, interpolation="nearest")
    figure.colorbar(shown, label=f"share of the {confusion.counted} of the class, %", shrink=0.8)
    axes.grid(visible=False)
    axes.set_xlabel("prediction")
    step = -(-len(names) // NAMED)
    ticks = range(0, len(names), step)
    short = [_short(names[i]) for i in ticks]
    axes.set_xticks(ticks, short, rotation=90, fontsize="small", parse_math=False)
    axes.set_yticks(ticks, short, fontsize="small", parse_math=False)
    if len(names) <= NUMBERED:
        for (row, column), count in np.ndenumerate(counts):
            color = "white" if shares[row, column] > 50 else "black" if count else "lightgray"
            axes.text(column, row, str(count), ha="center", va="center", fontsize="x-small", color=color)
    save_figure(figure, path)


def _short(name: str, length: int = 24) -> str:
    return name if len(name) <= length else f"{name[: length - 1]}…"
