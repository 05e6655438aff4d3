"""What accuracy costs: each number of steps in each precision, on the test split and on this host."""

import itertools
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from pipeline.core.files import Json
from pipeline.core.plotting import new_figure, save_figure
from pipeline.data.dataset import Split
from pipeline.export.onnx.precisions import Source, export_precisions
from pipeline.runtimes.base import predict
from pipeline.runtimes.latency import percentiles, random_pixels, time_in_turns
from pipeline.runtimes.onnx import OnnxRuntime
from pipeline.tasks.classification.metrics import score
from pipeline.tasks.classification.parity import compare
from pipeline.tasks.classification.proof import trained_logits


class Point(NamedTuple):
    """One file that could deploy."""

    num_steps: int | None
    precision: str
    accuracy: float
    """On the test split, by ONNX Runtime on the CPU."""
    top1_agreement: float
    """Share of images with the label that the trained network gives in as many steps."""
    bytes: int
    latency_ms: float
    """Median of one call."""


def measure_tradeoff(
    source: Source,
    candidates: Sequence[int | None],
    precisions: Sequence[str],
    test: Split,
    *,
    batch_size: int,
    num_threads: int,
    warmup: int,
    iterations: int,
) -> list[Point]:
    """Return a point for each of ``candidates`` in each of ``precisions``; all take turns at being timed.

    Raises:
        GateError: a rewriting is wrong, or a file is no valid ONNX.
    """
    with tempfile.TemporaryDirectory() as folder:
        points, runtimes = [], []
        for num_steps in tqdm(candidates, desc="exporting", unit="K", disable=None):
            work = Path(folder, str(num_steps))
            work.mkdir()
            reference = trained_logits(source.student, num_steps, test, 256)
            for file in export_precisions(source._replace(num_steps=num_steps), work, precisions):
                if file.precision not in precisions:
                    continue
                runtime = OnnxRuntime(file.path, num_threads=num_threads, spinning=False)
                logits = predict(runtime, test.pixels, 256)
                scores = score(logits, test.labels.numpy())
                agreement = compare(logits, reference).top1_agreement
                points.append(
                    Point(num_steps, file.precision, scores.accuracy, agreement, file.path.stat().st_size, 0.0)
                )
                runtimes.append(runtime)
        pixels = random_pixels(batch_size, (test.pixels.shape[2], test.pixels.shape[3]))
        seconds = time_in_turns(runtimes, pixels, warmup=warmup, iterations=iterations)
        return [
            point._replace(latency_ms=percentiles(spent)["p50"]) for point, spent in zip(points, seconds, strict=True)
        ]


def pareto_front(points: Sequence[Point]) -> list[Point]:
    """Return the points that no other beats in both accuracy and latency, fastest first."""
    ordered = sorted(points, key=lambda point: (point.latency_ms, -point.accuracy))
    best = itertools.accumulate((point.accuracy for point in ordered), max, initial=-1.0)
    return [point for point, before in zip(ordered, best, strict=False) if point.accuracy > before]


def table_rows(points: Sequence[Point]) -> list[Json]:
    """Return each point as a row, with whether it lies on the Pareto front."""
    front = set(pareto_front(points))
    return [{**point._asdict(), "on_the_front": point in front} for point in points]


def plot_tradeoff(points: Sequence[Point], path: Path, *, title: str) -> None:
    """Write a plot of accuracy against latency: a line for each precision, K at each point, the Pareto front marked."""
    figure, axes = new_figure(title, "top-1 accuracy on the test split, %")
    for precision in dict.fromkeys(point.precision for point in points):
        own = sorted((p for p in points if p.precision == precision), key=lambda p: p.num_steps or 0)
        axes.plot([p.latency_ms for p in own], [100 * p.accuracy for p in own], "o-", label=precision, alpha=0.8)
        for point in own:
            label = "no steps" if point.num_steps is None else f"K = {point.num_steps}"
            place = (point.latency_ms, 100 * point.accuracy)
            axes.annotate(label, place, xytext=(4, 4), textcoords="offset points", fontsize="small")
    front = pareto_front(points)
    axes.plot(
        [p.latency_ms for p in front], [100 * p.accuracy for p in front], "o", markersize=12, fillstyle="none",
        color="black", label="Pareto front",
    )  # fmt: skip
    axes.set_xlabel("median latency of a call, ms")
    axes.set_xlim(left=0)
    axes.legend()
    save_figure(figure, path)
