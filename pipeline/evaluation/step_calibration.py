"""Choose how many sampling steps the deployed student takes."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import nn

from models.deploy import deployable
from models.students import SampledStudent
from pipeline.core.errors import GateError
from pipeline.data.dataset import Split
from pipeline.networks.complexity import count_macs
from pipeline.runtimes.base import predict
from pipeline.runtimes.latency import benchmark
from pipeline.runtimes.torch import TorchRuntime
from pipeline.tasks.classification.metrics import ROUNDING, score

BATCH_SIZE = 256


class StepScores(NamedTuple):
    """What a number of steps costs and brings."""

    num_steps: int | None
    """K; None for a student without sampling steps."""
    accuracy: float
    nll: float
    ece: float
    macs: int
    """Multiply-adds of convolutions and matrix products for one image."""


class Choice(NamedTuple):
    """The chosen number of steps and why."""

    num_steps: int | None
    reason: str


def step_candidates(student: nn.Module, candidates: Sequence[int]) -> list[int | None]:
    """Return the numbers of steps to try, ascending; [None] for a student that takes none."""
    return [*sorted(set(candidates))] if isinstance(student, SampledStudent) else [None]


def measure_steps(student: nn.Module, num_steps: int | None, split: Split, device: torch.device) -> StepScores:
    """Return the scores of ``student`` with ``num_steps`` on ``split``."""
    network = deployable(student, num_steps).to(device)
    logits = predict(TorchRuntime(network, device=device), split.pixels, BATCH_SIZE)
    scores = score(logits, split.labels.numpy())
    macs = count_macs(network, split.images.shape[2:], device)
    return StepScores(num_steps, scores.accuracy, scores.nll, scores.ece, macs)


def measure_latency(student: nn.Module, num_steps: int | None, split: Split, device: torch.device) -> float:
    """Return the median milliseconds of one image in eager PyTorch, over 30 calls after 5."""
    runtime = TorchRuntime(deployable(student, num_steps).to(device), device=device)
    height, width = split.images.shape[2:]
    figures = benchmark(runtime, image_size=(height, width), batch_sizes=[1], warmup=5, iterations=30)
    return float(figures["latency_ms"]["1"]["p50"])


def choose_steps(
    curve: Sequence[StepScores], *, tolerance: float, latency_ms: Sequence[float], max_latency_ms: float | None
) -> Choice:
    """Return the smallest number of steps whose accuracy is within ``tolerance`` of the best.

    With ``max_latency_ms`` only the numbers of steps within that budget are looked at.

    Raises:
        GateError: no number of steps keeps within the budget.
    """
    affordable = [
        point
        for point, spent in zip(curve, latency_ms, strict=True)
        if max_latency_ms is None or spent <= max_latency_ms
    ]
    if not affordable:
        raise GateError(
            f"no number of steps keeps within calibrate_steps.max_latency_ms = {max_latency_ms:g} (fastest: "
            f"{min(latency_ms):.3g} ms); raise the budget, choose a smaller backbone, or set it to null"
        )
    best = max(affordable, key=lambda point: point.accuracy)
    chosen = next(point for point in affordable if point.accuracy >= best.accuracy - tolerance - ROUNDING)
    if chosen.num_steps is None:
        return Choice(None, "the method has no sampling steps")
    budget = "" if max_latency_ms is None else f" among those within {max_latency_ms:g} ms"
    return Choice(
        chosen.num_steps,
        f"smallest number of steps{budget} with an accuracy within {100 * tolerance:g} points of the best "
        f"({100 * chosen.accuracy:.2f}% against {100 * best.accuracy:.2f}% at {best.num_steps})",
    )
