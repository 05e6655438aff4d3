"""What accuracy costs: each number of steps in each precision, on the test split and on this host."""

import itertools
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from models.deploy import DeployableNetwork
from pipeline.core.files import Json
from pipeline.core.plotting import new_figure, save_figure
from pipeline.data.dataset import Split
from pipeline.evaluation.settings import MeasureTradeoff
from pipeline.export.onnx.files import Source, export_precisions
from pipeline.runtimes.base import Runtime, predict
from pipeline.runtimes.latency import percentiles, random_pixels, time_in_turns
from pipeline.runtimes.onnx import OnnxRuntime
from pipeline.tasks.base import Task
from pipeline.tasks.reference import REFERENCE_BATCH, reference


class Point(NamedTuple):
    """One file that could deploy."""

    num_steps: int | None
    precision: str
    score: float
    """The task's primary score on the test split, by ONNX Runtime on the CPU."""
    top1_agreement: float
    """Share of images with the answer that the trained network gives in as many steps."""
    bytes: int
    latency_ms: float
    """Median of one call."""

    def row(self, primary: str) -> Json:
        """Return the fields of a table's row; ``primary`` names the score."""
        row = self._asdict()
        return {primary if name == "score" else name: value for name, value in row.items()}


def measure_tradeoff(
    networks: Sequence[DeployableNetwork], source: Source, task: Task, test: Split, settings: MeasureTradeoff
) -> list[Point]:
    """Return a point for each of ``networks`` in each precision of ``settings``; all take turns at being timed.

    Args:
        source: what files are made from; its own network does not count.

    Raises:
        GateError: a rewriting is wrong, or a file is no valid ONNX.
    """
    points: list[Point] = []
    runtimes: list[Runtime] = []
    with tempfile.TemporaryDirectory() as folder:
        for network in tqdm(networks, desc="exporting", unit="K", disable=None):
            work = Path(folder, str(network.num_steps))
            work.mkdir()
            trained = reference(task, network, source.signature, test)
            for file in export_precisions(source._replace(network=network), work, settings.precisions):
                if file.precision not in settings.precisions:
                    continue
                runtime = OnnxRuntime(file.path, num_threads=settings.num_threads, spinning=False)
                outputs = predict(runtime, trained.pixels, REFERENCE_BATCH)
                score = task.score(outputs, trained.truth)[task.primary]
                agreement = task.compare(outputs, trained.outputs).top1_agreement
                size = file.path.stat().st_size
                points.append(Point(network.num_steps, file.precision, score, agreement, size, 0.0))
                runtimes.append(runtime)
        height, width = test.pixels.shape[2:]
        pixels = random_pixels(settings.batch_size, (height, width))
        seconds = time_in_turns(runtimes, pixels, warmup=settings.warmup, iterations=settings.iterations)
        medians = [percentiles(spent)["p50"] for spent in seconds]
        return [point._replace(latency_ms=median) for point, median in zip(points, medians, strict=True)]


def pareto_front(points: Sequence[Point]) -> list[Point]:
    """Return the points that no other beats in both score and latency, fastest first."""
    ordered = sorted(points, key=lambda point: (point.latency_ms, -point.score))
    best = itertools.accumulate((point.score for point in ordered), max, initial=-1.0)
    return [point for point, before in zip(ordered, best, strict=False) if point.score > before]


def table_rows(points: Sequence[Point], primary: str) -> list[Json]:
    """Return each point as a row, with whether it lies on the Pareto front; ``primary`` names the score."""
    front = set(pareto_front(points))
    return [{**point.row(primary), "on_the_front": point in front} for point in points]


def plot_tradeoff(points: Sequence[Point], path: Path, *, title: str, score_title: str) -> None:
    """Plot the score against latency: a line for each precision, K at each point, the Pareto front marked."""
    figure, axes = new_figure(title, f"{score_title} on the test split, %")
    for precision in dict.fromkeys(point.precision for point in points):
        own = sorted((p for p in points if p.precision == precision), key=lambda p: p.num_steps or 0)
        axes.plot([p.latency_ms for p in own], [100 * p.score for p in own], "o-", label=precision, alpha=0.8)
        for point in own:
            steps = "no steps" if point.num_steps is None else f"K = {point.num_steps}"
            place = (point.latency_ms, 100 * point.score)
            axes.annotate(steps, place, xytext=(4, 4), textcoords="offset points", fontsize="small")
    front = pareto_front(points)
    axes.plot(
        [p.latency_ms for p in front],
        [100 * p.score for p in front],
        "o",
        markersize=12,
        fillstyle="none",
        color="black",
        label="Pareto front",
    )
    axes.set_xlabel("median latency of a call, ms")
    axes.set_xlim(left=0)
    axes.legend()
    save_figure(figure, path)
