"""Choose how many sampling steps the deployed student takes."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn

from models.deploy import DeployableNetwork
from models.factory import count_parameters
from pipeline.core.errors import GateError
from pipeline.data.dataset import Split
from pipeline.networks.complexity import count_macs
from pipeline.runtimes.base import predict
from pipeline.runtimes.latency import benchmark
from pipeline.runtimes.torch import TorchRuntime
from pipeline.tasks.base import Scores
from pipeline.tasks.data import TaskData
from pipeline.tasks.verification import scores_with_error

ROUNDING = 1e-9
"""What two scores may differ by and still be compared as equal: they are fractions of whole images."""


class StepScores(NamedTuple):
    """What a number of steps brings, and what it costs."""

    num_steps: int | None
    """K; None for a student without sampling steps."""
    scores: Scores
    """The task's, and the standard error of its primary one."""
    macs: int
    """Multiply-adds of convolutions and matrix products for one image, in the form that deploys by default."""
    bound: float | None = None
    """On the teacher's negative log-likelihood, nats per image (``pipeline.evaluation.likelihood``); None: unknown."""

    @property
    def steps(self) -> int:
        """Return the number of steps of a student that takes steps."""
        assert self.num_steps is not None
        return self.num_steps

    def row(self) -> dict[str, Any]:
        """Return the fields of a table's row."""
        bound = {} if self.bound is None else {"bound": self.bound}
        return {"num_steps": self.num_steps, **self.scores, **bound, "macs": self.macs}


class PlainSize(NamedTuple):
    """The plain student beside one with sampling steps: what these cost is seen against it.

    It was not trained to answer alone, and has no score.
    """

    num_parameters: int
    macs: int


class Choice(NamedTuple):
    """The chosen number of steps and why."""

    num_steps: int | None
    reason: str


class StepCalibration:
    """Scores and latency of networks that differ in their number of steps alone, on ``split``.

    Args:
        split: images that are held out of training, never those of the test split.
    """

    def __init__(self, data: TaskData, split: Split, device: torch.device) -> None:
        self.task = data.task
        self.training = data.training
        self.signature = data.signature()
        self.split = split
        self.device = device

    def measure(self, network: DeployableNetwork) -> StepScores:
        """Return the scores of ``network`` in its general form, and the multiply-adds of its smallest."""
        runtime = self._runtime(network.general_form())
        outputs = predict(runtime, self.split.pixels, self.task.batch_size)
        scores = scores_with_error(self.task, outputs, self.split.targets.truth())
        return StepScores(network.num_steps, scores, self._macs(network.smallest_form(self._image_size)))

    def measure_plain(self, network: DeployableNetwork) -> PlainSize | None:
        """Return the size of the plain student; None where ``network`` takes no steps, and is the plain student."""
        if network.num_steps is None:
            return None
        plain = network.without_flows()
        return PlainSize(count_parameters(plain), self._macs(plain))

    def measure_latency(self, form: nn.Module) -> float:
        """Return the median milliseconds of one image by ``form`` in eager PyTorch, over 30 calls after 5."""
        runtime = self._runtime(form)
        figures = benchmark(runtime, image_size=self._image_size, batch_sizes=[1], warmup=5, iterations=30)
        return float(figures["latency_ms"]["1"]["p50"])

    @property
    def _image_size(self) -> tuple[int, int]:
        height, width = self.split.images.shape[2:]
        return height, width

    def _runtime(self, form: nn.Module) -> TorchRuntime:
        whole = self.training.export_parts(form).whole()
        return TorchRuntime(whole.to(self.device), output_names=self.signature.output_names, device=self.device)

    def _macs(self, form: nn.Module) -> int:
        return count_macs(self.training.export_parts(form).body.to(self.device), self._image_size, self.device)


class Decider(NamedTuple):
    """What the number of steps is chosen by."""

    worth: Callable[[StepScores], float]
    """The more the better."""
    enough: Callable[[float], float]
    """From the best worth to the least with which fewer steps win."""
    reason: Callable[[StepScores, StepScores], str]
    """What is said of the chosen one and the best: "a number of steps with ..."."""


def by_score(primary: str, tolerance: float, *, in_words: str | None = None) -> Decider:
    """Return what decides by the score ``primary``, called ``in_words``: it may be ``tolerance`` below the best."""
    name = in_words or primary
    article = "an" if name[0] in "aeiouA" else "a"

    def reason(chosen: StepScores, best: StepScores) -> str:
        own, theirs = (f"{100 * point.scores[primary]:.2f}%" for point in (chosen, best))
        return (
            f"with {article} {name} within {100 * tolerance:g} points of the best ({own} against {theirs} at "
            f"{best.num_steps})"
        )

    return Decider(lambda point: point.scores[primary], lambda best: best - tolerance, reason)


def by_bound(trivial: float, tolerance: float) -> Decider:
    """Return what decides by the bound of theorem 3.1: its gain may be the share ``tolerance`` below the best gain.

    Args:
        trivial: the bound of a predictor that says the same of every image, in nats per image; gains are over it.
    """

    def gain(point: StepScores) -> float:
        assert point.bound is not None
        return trivial - point.bound

    def reason(chosen: StepScores, best: StepScores) -> str:
        return (
            f"whose bound on the teacher's negative log-likelihood is within {100 * tolerance:g}% of the best gain "
            f"({chosen.bound:.4g} against {best.bound:.4g} nats at {best.num_steps}, {trivial:.4g} by the mean of its "
            "outputs)"
        )

    return Decider(gain, lambda best: best - tolerance * max(best, 0.0), reason)


def choose_steps(
    curve: Sequence[StepScores], decider: Decider, *, latency_ms: Sequence[float], max_latency_ms: float | None
) -> Choice:
    """Return the smallest number of steps whose worth, as ``decider`` has it, is enough beside the best.

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
    if affordable[0].num_steps is None:
        return Choice(None, "the method has no sampling steps")
    best = max(affordable, key=decider.worth)
    enough = decider.enough(decider.worth(best)) - ROUNDING
    chosen = next(point for point in affordable if decider.worth(point) >= enough)
    budget = "" if max_latency_ms is None else f" among those within {max_latency_ms:g} ms"
    return Choice(chosen.num_steps, f"smallest number of steps{budget} {decider.reason(chosen, best)}")
