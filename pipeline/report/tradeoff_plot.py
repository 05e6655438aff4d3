"""What accuracy costs, as a picture: score against latency."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.core.files import Json
from pipeline.core.plotting import new_figure, save_figure
from pipeline.report.annotations import Annotation, annotate_apart
from pipeline.tasks.base import Task

RING: dict[str, Any] = {"markersize": 12, "fillstyle": "none", "color": "black"}
MARKERS = "osD^vP"


def plot_tradeoff(tradeoff: Json, teacher_score: float | None, task: Task, path: Path) -> None:
    """Plot the score against latency, K at each point, the Pareto front marked, plain student and teacher as lines.

    Args:
        tradeoff: content of tradeoff.json.
        teacher_score: on the same images; None: there is no teacher.
    """
    num_images, points = tradeoff["num_images"], tradeoff["points"]
    figure, axes = new_figure(
        f"{task.primary_title} against latency: {tradeoff['network']}",
        f"{task.primary_title} on the test split ({num_images:,} images), %",
    )
    annotations: list[Annotation] = []
    for number, precision in enumerate(dict.fromkeys(point["precision"] for point in points)):
        own = sorted((p for p in points if p["precision"] == precision), key=lambda p: p["num_steps"] or 0)
        bars = [100 * p[task.primary_error] for p in own]
        style: dict[str, Any] = {"color": f"C{number}", "marker": MARKERS[number % len(MARKERS)], "alpha": 0.8}
        name = f"{precision}, with standard error"
        axes.errorbar(*_places(own, task), yerr=bars, capsize=3, elinewidth=0.8, label=name, **style)
        texts = ["no steps" if p["num_steps"] is None else f"K = {p['num_steps']}" for p in own]
        annotations += [
            Annotation(x, y, text, style["color"]) for x, y, text in zip(*_places(own, task), texts, strict=True)
        ]
    axes.plot(*_places([p for p in points if p["on_the_front"]], task), "o", label="Pareto front", **RING)
    if teacher_score is not None:
        name = f"teacher, {teacher_score:.2%} (latency not measured)"
        axes.axhline(100 * teacher_score, color="black", linestyle="--", linewidth=1, label=name)
    slowest = max(point["latency_ms"] for point in points)
    if tradeoff["plain"] is not None:
        latency = tradeoff["plain"]["latency_ms"]
        name = f"plain student without its flow, {latency:.3g} ms (no {task.primary_in_words} of its own)"
        axes.axvline(latency, color="gray", linestyle=":", linewidth=1.5, label=name)
        slowest = max(slowest, latency)
    axes.set_xlabel(f"median latency of a call, ms ({tradeoff['protocol'].partition(';')[0]})")
    axes.set_xlim(0, 1.1 * slowest)
    figure.legend(loc="outside lower center", ncols=2, fontsize="small")
    annotate_apart(figure, axes, annotations)
    save_figure(figure, path)


def _places(points: Sequence[Json], task: Task) -> tuple[list[float], list[float]]:
    """Return milliseconds and percent of ``points``."""
    return [point["latency_ms"] for point in points], [100 * point[task.primary] for point in points]
