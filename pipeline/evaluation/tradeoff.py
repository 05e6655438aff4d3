"""What accuracy costs: each number of steps in each precision, on the test split and on this host."""

import itertools
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from models.deploy import DeployableNetwork
from pipeline.core.files import Json
from pipeline.data.dataset import Split
from pipeline.evaluation.settings import MeasureTradeoff
from pipeline.export.onnx.exporter import export_image_network
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


class Plain(NamedTuple):
    """The student without its flows: what sampling steps cost is seen beside it. It was not trained to answer alone."""

    bytes: int
    latency_ms: float


class Measured(NamedTuple):
    """What was measured on this host."""

    points: list[Point]
    plain: Plain | None
    """In fp32; None where a student has no sampling steps, so that its points are the plain student's."""


def measure_tradeoff(
    networks: Sequence[DeployableNetwork], source: Source, task: Task, test: Split, settings: MeasureTradeoff
) -> Measured:
    """Return a point for each of ``networks`` in each precision of ``settings``; all take turns at being timed.

    Args:
        networks: the same student with each number of steps.
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
        plain = Path(folder, "plain.onnx")
        if networks[0].num_steps is not None:
            runtimes.append(_plain_runtime(networks[0], source, plain, settings))
        height, width = test.pixels.shape[2:]
        pixels = random_pixels(settings.batch_size, (height, width))
        seconds = time_in_turns(runtimes, pixels, warmup=settings.warmup, iterations=settings.iterations)
        medians = [percentiles(spent)["p50"] for spent in seconds]
        timed = [point._replace(latency_ms=median) for point, median in zip(points, medians, strict=False)]
        return Measured(timed, Plain(plain.stat().st_size, medians[-1]) if plain.exists() else None)


def _plain_runtime(network: DeployableNetwork, source: Source, path: Path, settings: MeasureTradeoff) -> Runtime:
    """Write the student without its flows to ``path`` and open it."""
    taken, names = source.signature.input, source.signature.output_names
    export_image_network(network.without_flows(), path, taken, names, opset=source.settings.opset, metadata={})
    return OnnxRuntime(path, num_threads=settings.num_threads, spinning=False)


def pareto_front(points: Sequence[Point]) -> list[Point]:
    """Return the points that no other beats in both score and latency, fastest first."""
    ordered = sorted(points, key=lambda point: (point.latency_ms, -point.score))
    best = itertools.accumulate((point.score for point in ordered), max, initial=-1.0)
    return [point for point, before in zip(ordered, best, strict=False) if point.score > before]


def table_rows(points: Sequence[Point], primary: str) -> list[Json]:
    """Return each point as a row, with whether it lies on the Pareto front; ``primary`` names the score."""
    front = set(pareto_front(points))
    return [{**point.row(primary), "on_the_front": point in front} for point in points]
