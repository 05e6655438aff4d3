"""The report of a runtime on the test split: each of its precisions judged by its gate, and timed."""

import logging
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from pipeline.core.files import Json
from pipeline.data.dataset import Split
from pipeline.runtimes.base import Runtime
from pipeline.runtimes.latency import benchmark
from pipeline.tasks.classification.metrics import Logits
from pipeline.tasks.classification.parity import Gate
from pipeline.tasks.classification.proof import Evaluation, evaluate, check_gate

logger = logging.getLogger(__name__)


class RuntimeReport(NamedTuple):
    """What was found of a runtime."""

    scores: Json
    """What is the same in every run: status, and the figures of the first precision with those of the others below."""
    report: Json
    """The same with latency, throughput and protocol."""
    logits: Logits
    """Of the first precision, (N, num_classes)."""


def evaluate_runtimes(
    runtimes: Mapping[str, Callable[[], Runtime]],
    test: Split,
    reference: Logits,
    *,
    batch_size: int,
    gates: Mapping[str, Gate],
    timing: Mapping[str, Any],
) -> RuntimeReport:
    """Judge the runtimes, opened one after the other, against the trained logits ``reference`` (N, num_classes).

    Args:
        runtimes: what opens each, by precision.
        timing: arguments of ``pipeline.runtimes.latency.benchmark``.

    Raises:
        GateError: one is not as its entry of ``gates`` demands.
    """
    found: dict[str, Evaluation] = {}
    times: dict[str, Json] = {}
    for precision, open_runtime in runtimes.items():
        runtime = open_runtime()
        judged = evaluate(runtime, test, reference, batch_size)
        logger.info(
            "%s: accuracy %.2f%%, logits differ by at most %.2g",
            precision, 100 * judged.scores.accuracy, judged.parity.max_abs,
        )  # fmt: skip
        check_gate(judged, reference, test.labels.numpy(), f"evaluate, {precision}, test split", gates[precision])
        found[precision] = judged
        times[precision] = benchmark(runtime, **timing)
    reports = {precision: judged.report() for precision, judged in found.items()}
    timed = {precision: report | times[precision] for precision, report in reports.items()}
    first = next(iter(found))
    return RuntimeReport(_nested(reports, first), _nested(timed, first), found[first].logits)


def _nested(reports: Mapping[str, Json], first: str) -> Json:
    others = {precision: report for precision, report in reports.items() if precision != first}
    return {"status": "evaluated", "precision": first, **reports[first], "precisions": others}
