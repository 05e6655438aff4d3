"""What accuracy costs: each number of steps in each precision, on the test split and on this host."""

import itertools
import logging
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from tqdm import tqdm

from models.deploy import DeployableNetwork
from models.factory import count_parameters
from pipeline.core.errors import GateError
from pipeline.core.files import Json
from pipeline.core.text_table import steps_in_words
from pipeline.data.dataset import Split
from pipeline.evaluation.settings import MeasureTradeoff
from pipeline.export.onnx.files import (
    Exported,
    ExportedFolder,
    Source,
    export_plain,
    export_precisions,
    export_tail,
    open_exported,
)
from pipeline.networks.complexity import count_macs
from pipeline.runtimes.base import Runtime, predict
from pipeline.runtimes.latency import benchmark, percentiles, random_pixels, time_in_turns
from pipeline.runtimes.onnx import OnnxRuntime
from pipeline.tasks.base import Task
from pipeline.tasks.reference import reference
from pipeline.tasks.verification import Reference, scores_with_error

logger = logging.getLogger(__name__)


class Missing(NamedTuple):
    """One file that could not be had."""

    num_steps: int | None
    precision: str
    reason: str


class Point(NamedTuple):
    """One file that could deploy."""

    num_steps: int | None
    precision: str
    score: float
    """The task's primary score on the test split, by ONNX Runtime on the CPU."""
    score_error: float
    """Its standard error."""
    agreement: float
    """Share of answers, images or whatever the task counts, that the trained network gives in as many steps."""
    bytes: int
    latency_ms: float
    """Median of one call."""

    def row(self, task: Task) -> Json:
        """Return the fields of a table's row, the score by the name that ``task`` has for it."""
        names = {"score": task.primary, "score_error": task.primary_error}
        return {names.get(name, name): value for name, value in self._asdict().items()}


class Plain(NamedTuple):
    """The student without its flows: what sampling steps cost is seen beside it. It was not trained to answer alone."""

    bytes: int
    latency_ms: float
    """Median of one call, in turns with the points."""
    num_parameters: int
    macs: int
    latency_by_batch_ms: dict[str, float]
    """The same on its own, from each batch size at which runtimes are evaluated."""


class Tradeoff(NamedTuple):
    """What was measured on this host."""

    points: list[Point]
    left_out: list[Missing]
    plain: Plain | None
    """In fp32; None where a student has no sampling steps, so that its points are the plain student's."""


def measure_tradeoff(
    networks: Sequence[DeployableNetwork],
    source: Source,
    exported: ExportedFolder,
    task: Task,
    test: Split,
    settings: MeasureTradeoff,
    batch_sizes: Sequence[int],
) -> Tradeoff:
    """Return a point for each of ``networks`` in each precision of ``settings``; all take turns at being timed.

    What cannot be exported, or gives outputs that are not finite, is left out with a warning.

    Args:
        networks: the same student with each number of steps.
        source: what files are made from, with one of ``networks``.
        exported: files that are there already, of one number of steps; where they have every precision they are
            measured as they ship.
        batch_sizes: at which the plain student is timed on its own too.

    Raises:
        GateError: a rewriting is wrong, or a float32 file is no valid ONNX.
    """
    found = Tradeoff([], [], None)
    runtimes: list[Runtime] = []
    with tempfile.TemporaryDirectory() as folder:
        tail = export_tail(source, Path(folder, "tail.onnx"))
        for network in tqdm(networks, desc="exporting", unit="K", disable=None):
            work = Path(folder, str(network.num_steps))
            work.mkdir()
            trained = reference(task, network, source.signature, test)
            exports = exported.take(network.num_steps, settings.precisions)
            if exports is None:
                exports = export_precisions(source._replace(network=network), work, settings.precisions, tail=tail)
            failed = dict(exports.failed)
            for file in exports.files:
                if file.precision not in settings.precisions:
                    continue
                try:
                    runtime = open_exported(file.path, num_threads=settings.num_threads, spinning=False)
                    found.points.append(_point(network.num_steps, file, runtime, trained))
                    runtimes.append(runtime)
                except GateError as error:
                    failed[file.precision] = error
            found.left_out.extend(Missing(network.num_steps, name, str(why)) for name, why in failed.items())
        for missing in found.left_out:
            steps = steps_in_words(missing.num_steps, none="no")
            logger.warning("left out: %s steps, %s: %s", steps, missing.precision, missing.reason)
        if not found.points:
            raise GateError(f"measure_tradeoff.precisions: none of {', '.join(settings.precisions)} could be exported")
        plain = Path(folder, "plain.onnx")
        if networks[0].num_steps is not None:
            export_plain(source, plain, tail=tail)
            runtimes.append(OnnxRuntime(plain, num_threads=settings.num_threads, spinning=False))
        height, width = test.pixels.shape[2:]
        pixels = random_pixels(settings.batch_size, (height, width))
        logger.info("timing %d files in turns, %d calls of each", len(runtimes), settings.warmup + settings.iterations)
        seconds = time_in_turns(runtimes, pixels, warmup=settings.warmup, iterations=settings.iterations)
        medians = [percentiles(spent)["p50"] for spent in seconds]
        timed = [point._replace(latency_ms=median) for point, median in zip(found.points, medians, strict=False)]
        if not plain.exists():
            return found._replace(points=timed)
        network = networks[0].without_flows()
        alone = benchmark(
            runtimes[-1],
            image_size=(height, width),
            batch_sizes=batch_sizes,
            warmup=settings.warmup,
            iterations=settings.iterations,
        )
        own = Plain(
            bytes=plain.stat().st_size,
            latency_ms=medians[-1],
            num_parameters=count_parameters(network),
            macs=count_macs(source.task.export_parts(network).body, (height, width), torch.device("cpu")),
            latency_by_batch_ms={size: figures["p50"] for size, figures in alone["latency_ms"].items()},
        )
        return found._replace(points=timed, plain=own)


def _point(num_steps: int | None, file: Exported, runtime: Runtime, trained: Reference) -> Point:
    """Return what is found of ``file`` before it is timed; raises GateError where its outputs are not finite."""
    task = trained.task
    outputs = predict(runtime, trained.pixels, task.batch_size)
    agreement = task.compare(outputs, trained.outputs, trained.scale).agreement
    scores = scores_with_error(task, outputs, trained.truth)
    score, error = scores[task.primary], scores[task.primary_error]
    return Point(num_steps, file.precision, score, error, agreement, file.path.stat().st_size, 0.0)


def pareto_front(points: Sequence[Point]) -> list[Point]:
    """Return the points that no other beats in both score and latency, fastest first."""
    ordered = sorted(points, key=lambda point: (point.latency_ms, -point.score))
    best = itertools.accumulate((point.score for point in ordered), max, initial=-1.0)
    return [point for point, before in zip(ordered, best, strict=False) if point.score > before]


def table_rows(points: Sequence[Point], task: Task) -> list[Json]:
    """Return each point as a row, with whether it lies on the Pareto front; ``task`` names the score."""
    front = set(pareto_front(points))
    return [{**point.row(task), "on_the_front": point in front} for point in points]
