"""The figures of README.md and of the documentation, drawn from committed results and from the code.

Each is there for light and for dark pages.

make figures    # writes docs/assets; the same results and imports give the same bytes
"""

import csv
import itertools
import json
import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import click
from matplotlib import rc_context
from matplotlib.figure import Figure

from benchmarks.code_map import code_map
from benchmarks.drawing import THEMES, Theme, arrow, box
from pipeline.preflight.stage_table import STAGES
from pipeline.report.tradeoff_plot import plot_tradeoff
from pipeline.tasks.table import get_task

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks/results/cifar10-long"
RUN = ROOT / "benchmarks/results/first-run"
ASSETS = ROOT / "docs/assets"


LABELS = {
    "none": "labels alone",
    "metric": "KD",
    "metric_meta": "KD + the same layers",
    "metric_meta, 4 heads": "four heads",
    "theta flow": "FM-KT$^\\Theta$",
    "fm_kt, K = 1": "FM-KT, K = 1",
    "fm_kt, K = 2": "K = 2",
    "fm_kt, K = 4": "K = 4",
}
"""The networks that are shown, by their names in latency.json."""
PLACES = {
    "none": (8, -3, "left"),
    "metric": (-8, -3, "right"),
    "metric_meta": (9, -12, "left"),
    "metric_meta, 4 heads": (8, 3, "left"),
    "theta flow": (-8, -4, "right"),
    "fm_kt, K = 1": (-7, 7, "right"),
    "fm_kt, K = 2": (1, 11, "center"),
    "fm_kt, K = 4": (8, -6, "left"),
}
"""Where a label stands beside its point: points to the right, points up, alignment."""


class Point(NamedTuple):
    """A network in the plane of latency and accuracy."""

    network: str
    latency: float
    """Median of one image, ms."""
    accuracy: float
    """Mean over the seeds, %."""
    error: float
    """Its standard error, points."""


def compared() -> list[Point]:
    """Return the networks of the comparison: flows with each number of steps."""
    networks = json.loads((RESULTS / "latency.json").read_text())["networks"]
    rows = {row["method"]: row for row in _rows("table.csv")}
    rows |= {f"{row['method']}, K = {row['num_steps']}": row for row in _rows("steps.csv")}
    points = []
    for network in LABELS:
        row = rows[network]
        error = 100 * float(row["std"]) / math.sqrt(int(row["n"]))
        points.append(Point(network, networks[network]["p50_ms"], 100 * float(row["score"]), error))
    (score,) = re.findall(r"^- Teacher: .* ([\d.]+)% on test", (RESULTS / "README.md").read_text(), re.MULTILINE)
    points.append(Point("teacher", networks["teacher"]["p50_ms"], float(score), 0.0))
    return points


def _rows(name: str) -> list[dict[str, str]]:
    with (RESULTS / name).open(newline="") as file:
        return list(csv.DictReader(file))


def front(points: Sequence[Point]) -> list[Point]:
    """Return the points that none excels in both: the fastest first."""
    kept: list[Point] = []
    for point in sorted(points, key=lambda point: (point.latency, -point.accuracy)):
        if not kept or point.accuracy > kept[-1].accuracy:
            kept.append(point)
    return kept


def draw_tradeoff(axes: Any, theme: Theme) -> None:
    """Draw accuracy against latency, the front as a line."""
    points = compared()
    best, right = front(points), 1.4 * max(p.latency for p in points)
    axes.step(
        [*(p.latency for p in best), right],
        [*(p.accuracy for p in best), best[-1].accuracy],
        where="post", color=theme.ship, linewidth=1.6, alpha=0.7, zorder=1, label="Pareto front",
    )  # fmt: skip
    for point in points:
        flow = point.network.startswith(("fm_kt", "theta"))
        color = theme.teacher if point.network == "teacher" else theme.flow if flow else theme.student
        axes.errorbar(
            point.latency, point.accuracy, yerr=point.error or None,
            fmt="D" if point.network == "teacher" else "o", color=color, markersize=6, capsize=2.5, elinewidth=1,
        )  # fmt: skip
        if point.network == "teacher":
            place, text = (-9, -3, "right"), f"teacher resnet20, {point.accuracy:.1f}%"
        else:
            place, text = PLACES[point.network], LABELS[point.network]
        if point.network in {"none", "fm_kt, K = 1", "metric_meta, 4 heads"}:
            text += f", {point.accuracy:.1f}%"
        axes.annotate(
            text, (point.latency, point.accuracy), place[:2], textcoords="offset points", ha=place[2],
            color=color, fontsize=8.5,
        )  # fmt: skip
    axes.set_xscale("log")
    left = 0.21 * min(p.latency for p in points)
    axes.set_xlim(left, right)
    axes.set_ylim(67.5, 80.5)
    ticks = [tick for tick in (0.02, 0.05, 0.1, 0.2, 0.5, 1.0) if left < tick < right]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.set_xlabel("ms for one image, one CPU thread (log)")
    axes.set_ylabel("top-1 accuracy on test, %")
    axes.grid(visible=True, alpha=0.2, color=theme.quiet)
    axes.legend(loc="upper left", frameon=False, fontsize=8.5)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def draw_method(axes: Any, theme: Theme) -> None:
    """Draw training and deployment of FM-KT: 6.4 x 3.9 inches."""
    axes.set_xlim(0, 6.4)
    axes.set_ylim(0, 3.9)
    axes.set_aspect("equal")
    axes.axis("off")
    height = 0.46
    axes.text(0.02, 3.72, "Training", fontsize=10.5, fontweight="bold", va="center")
    box(axes, (0.05, 1.9), (0.68, height), "image", theme.quiet)
    box(axes, (1.05, 2.95), (1.15, height), "teacher, frozen", theme.teacher)
    box(axes, (4.3, 2.95), (2.05, height), "its answer $X_T$", theme.teacher)
    box(axes, (1.05, 1.9), (1.15, height), "student", theme.student)
    states = [(2.5, "$Z_0$"), (3.62, "$Z_1$"), (4.74, "$\\cdots$"), (5.86, "$Z_N$")]
    for x, text in states:
        box(axes, (x, 1.9), (0.49, height), text, theme.flow)
    middle = 1.9 + height / 2
    arrow(axes, (0.73, middle), (1.05, middle), theme.quiet)
    arrow(axes, (0.55, 1.9 + height), (1.05, 2.95 + height / 2), theme.quiet)
    arrow(axes, (2.2, middle), (2.5, middle), theme.quiet)
    arrow(axes, (2.2, 2.95 + height / 2), (4.3, 2.95 + height / 2), theme.quiet)
    for (x, _), (following, _) in itertools.pairwise(states):
        arrow(axes, (x + 0.49, middle), (following, middle), theme.flow)
        axes.text((x + 0.49 + following) / 2, middle + 0.12, "$-v/N$", ha="center", fontsize=8, color=theme.flow)
        answer = (4.62 + 0.3 * (x - 2.5), 2.95)
        arrow(
            axes, (x + 0.42, 1.9 + height), answer, theme.quiet, linestyle=(0, (3, 2)), connectionstyle="arc3,rad=-0.05"
        )
    axes.text(
        2.78, 2.65, "every step estimates $X_T$\nand is compared with it",
        fontsize=8.5, color=theme.quiet, va="center", ha="right",
    )  # fmt: skip
    axes.text(
        6.35, 1.68, "a meta-encoder predicts the velocity $v(Z, t)$ from the student's feature to the teacher",
        fontsize=8.5, color=theme.flow, va="center", ha="right",
    )  # fmt: skip
    axes.plot([0.02, 6.38], [1.38, 1.38], color=theme.quiet, linewidth=0.6, alpha=0.5)
    axes.text(0.02, 1.15, "Deployed", fontsize=10.5, fontweight="bold", va="center")
    axes.text(
        1.05, 1.15, "no teacher; the fewest steps K within a tolerance, folded into weights, proved equal",
        fontsize=8.5, color=theme.quiet, va="center",
    )  # fmt: skip
    box(axes, (0.05, 0.38), (0.68, height), "image", theme.quiet)
    box(axes, (1.05, 0.38), (1.15, height), "student", theme.student)
    box(axes, (2.5, 0.38), (1.61, height), "K steps, folded", theme.flow)
    box(axes, (4.41, 0.38), (1.94, height), "answer: ONNX, engine", theme.ship)
    for start, end in ((0.73, 1.05), (2.2, 2.5), (4.11, 4.41)):
        arrow(axes, (start, 0.38 + height / 2), (end, 0.38 + height / 2), theme.quiet)
    note = "FM-KT$^\\Theta$ deploys the plain student alone; OFM-KT learns without a teacher."
    axes.text(0.02, 0.08, note, fontsize=8.5, color=theme.quiet)


CHAIN = (
    (
        ("probe_environment", "parameters, paths,\nwhat this host can build"),
        ("prepare_data", "your images:\nread, split, packed"),
        ("train_teacher", "trained,\nor yours as it is"),
        ("distill_student", "the flow carries\nteacher into student"),
    ),
    (
        ("calibrate_steps", "the fewest steps K\non held-out images"),
        ("trace_flow", "what the steps\nknow"),
        ("export_onnx", "ONNX in 4 precisions,\neach proved equal"),
        ("measure_tradeoff", "accuracy against\nlatency of every K"),
    ),
    (
        ("export_tensorrt", "engines, where\nthere is a GPU"),
        ("evaluate", "every runtime\non the test split"),
        ("report", "one page, mistakes,\neach class"),
        ("package", "files, card, client,\nprogram, server"),
    ),
)
"""The stages in rows, with what they do."""


def draw_chain(axes: Any, theme: Theme) -> None:
    """Draw the stages of the chain: 9 x 3.9 inches."""
    if [name for row in CHAIN for name, _ in row] != list(STAGES):
        raise click.ClickException(f"the figure of the chain must show the stages {', '.join(STAGES)}")
    axes.set_xlim(0, 9)
    axes.set_ylim(0, 3.9)
    axes.set_aspect("equal")
    axes.axis("off")
    width, height = 1.9, 0.92
    colors = (theme.student, theme.flow, theme.ship)
    for line, (row, color) in enumerate(zip(CHAIN, colors, strict=True)):
        y = 2.85 - 1.35 * line
        for number, (name, text) in enumerate(row):
            x = 0.1 + 2.3 * number
            box(axes, (x, y), (width, height), "", color)
            axes.text(x + width / 2, y + 0.7, name, ha="center", va="center", fontsize=9.5, fontweight="bold")
            axes.text(x + width / 2, y + 0.32, text, ha="center", va="center", fontsize=8.5, color=theme.quiet)
            if number + 1 < len(row):
                arrow(axes, (x + width, y + height / 2), (x + 2.3, y + height / 2), theme.quiet)
        if line + 1 < len(CHAIN):
            start, end, turn = 0.1 + 2.3 * 3 + width / 2, 0.1 + width / 2, y - 0.215
            axes.plot([start, start, end], [y, turn, turn], color=theme.quiet, linewidth=1.3)
            arrow(axes, (end, turn), (end, y - 0.43), theme.quiet)


def overview(theme: Theme) -> Figure:
    """Return the method beside what it brings."""
    figure = Figure(figsize=(11, 4.2))
    draw_method(figure.add_axes((0.005, 0.02, 6.4 / 11, 0.93)), theme)
    axes = figure.add_axes((0.655, 0.145, 0.34, 0.765))
    draw_tradeoff(axes, theme)
    axes.set_title("10,000 images of CIFAR-10, five seeds", fontsize=10.5, fontweight="bold", loc="left")
    return figure


def method(theme: Theme) -> Figure:
    """Return the method alone."""
    figure = Figure(figsize=(6.6, 4.0))
    draw_method(figure.add_axes((0.01, 0.01, 0.98, 0.98)), theme)
    return figure


def tradeoff(theme: Theme) -> Figure:
    """Return accuracy against latency alone."""
    figure = Figure(figsize=(7, 4.6), layout="constrained")
    draw_tradeoff(figure.add_subplot(), theme)
    return figure


def chain(theme: Theme) -> Figure:
    """Return the chain of stages."""
    figure = Figure(figsize=(9.2, 4.0))
    draw_chain(figure.add_axes((0.01, 0.01, 0.98, 0.98)), theme)
    return figure


FIGURES: dict[str, Callable[[Theme], Figure]] = {
    "overview": overview,
    "method": method,
    "tradeoff": tradeoff,
    "chain": chain,
    "code-map": code_map,
}


@click.command()
@click.option("--output", default=ASSETS, type=click.Path(path_type=Path), help="Folder to write.")
def main(*, output: Path) -> None:
    """Draw all figures for light and dark pages."""
    output.mkdir(parents=True, exist_ok=True)
    for theme in THEMES:
        style: dict[Any, Any] = dict.fromkeys(
            ("text.color", "axes.labelcolor", "xtick.labelcolor", "ytick.labelcolor"), theme.text
        )
        style |= dict.fromkeys(("axes.edgecolor", "xtick.color", "ytick.color"), theme.quiet)
        style |= {"axes.facecolor": "none", "font.family": "DejaVu Sans", "mathtext.fontset": "dejavusans"}
        for name, draw in FIGURES.items():
            path = output / f"{name}-{theme.name}.svg"
            with rc_context({**style, "svg.hashsalt": path.stem, "font.size": 9}):
                draw(theme).savefig(path, transparent=True, metadata={"Date": None, "Creator": None})
            click.echo(path)
    click.echo(draw_run(output / "first-run-tradeoff.svg"))


def draw_run(path: Path) -> Path:
    """Draw the plot of a first run as the run itself does, and return ``path``."""
    tradeoff = json.loads((RUN / "tradeoff.json").read_text())
    found = re.search(r"^top-1 accuracy +([\d.]+)%", (RUN / "summary.txt").read_text(), re.MULTILINE)
    plot_tradeoff(tradeoff, float(found[1]) / 100 if found else None, get_task("classification"), path)
    return path


if __name__ == "__main__":
    main()
