"""The report of a runtime on the test split: each of its precisions checked against its gate, and timed."""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from pipeline.core.arrays import Outputs
from pipeline.core.files import Json
from pipeline.core.text_table import with_error
from pipeline.evaluation.settings import Evaluate
from pipeline.runtimes.base import Runtime
from pipeline.runtimes.latency import benchmark
from pipeline.tasks.gate import PlacedGate
from pipeline.tasks.verification import Reference, Verified, verify

logger = logging.getLogger(__name__)


class RuntimeReport(NamedTuple):
    """What was found of a runtime."""

    scores: Json
    """What is the same in every run: status, and the figures of the first precision with those of the others below."""
    report: Json
    """The same with latency, throughput and protocol."""
    outputs: Outputs
    """Of the first precision."""


def evaluate_runtimes(
    runtimes: Mapping[str, Callable[[], Runtime]],
    reference: Reference,
    settings: Evaluate,
    gates: Mapping[str, PlacedGate],
    class_names: Sequence[str],
) -> RuntimeReport:
    """Evaluate the runtimes, opened one after the other, on the test split ``reference``.

    Args:
        runtimes: what opens each, by precision.
        gates: how far each may be from the trained network, by precision.

    Raises:
        GateError: one is further.
    """
    found: dict[str, Verified] = {}
    reports: dict[str, Json] = {}
    times: dict[str, Json] = {}
    primary = reference.task.primary
    height, width = reference.pixels.shape[2:]
    for precision, open_runtime in runtimes.items():
        runtime = open_runtime()
        verified = verify(
            runtime,
            reference,
            gates[precision],
            what=f"evaluate, {precision}, test split",
            batch_size=settings.batch_size,
        )
        found[precision] = verified
        reports[precision] = _report(verified, reference)
        score = with_error(reports[precision][primary], verified.standard_error)
        logger.info("%s: %s %s, %s", precision, reference.task.primary_in_words, score, verified.parity.in_words())
        times[precision] = benchmark(
            runtime,
            image_size=(height, width),
            batch_sizes=settings.latency_batch_sizes,
            warmup=settings.latency_warmup,
            iterations=settings.latency_iterations,
        )
    timed = {precision: report | times[precision] for precision, report in reports.items()}
    first = next(iter(found))
    outputs = found[first].outputs
    doubts = reference.task.doubts(outputs, reference.truth, class_names)
    warnings = {"warnings": [f"on the test split the deployed network {doubt}" for doubt in doubts]}
    for warning in warnings["warnings"]:
        logger.warning("%s", warning)
    return RuntimeReport(_nested(reports, first) | warnings, _nested(timed, first) | warnings, outputs)


def _report(found: Verified, reference: Reference) -> Json:
    assert found.scores is not None, "a test split has its truth"
    error = {reference.task.primary_error: found.standard_error}
    return {**found.scores, **error, "num_images": len(reference), "parity": found.parity._asdict()}


def _nested(reports: Mapping[str, Json], first: str) -> Json:
    others = {precision: report for precision, report in reports.items() if precision != first}
    return {"status": "evaluated", "precision": first, **reports[first], "precisions": others}
