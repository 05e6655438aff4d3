"""Follow the state along the flow: distance to the teacher, straightness, score of each step."""

import logging
from pathlib import Path

import click

from models.deploy import with_each_num_steps
from pipeline.core.files import write_csv
from pipeline.core.settings import Base
from pipeline.core.torch_setup import set_up_torch
from pipeline.distillation.frozen_teacher import load_frozen_teacher
from pipeline.distillation.traced_flows import traced_flows
from pipeline.evaluation.calibration_settings import CalibrateSteps
from pipeline.evaluation.continuous import ContinuousLikelihood
from pipeline.evaluation.ensemble import COLUMNS as ENSEMBLE_COLUMNS
from pipeline.evaluation.ensemble import ensemble_rows, find_members
from pipeline.evaluation.flow_diagnostics import FlowDiagnostics, Row, columns, summary_columns
from pipeline.evaluation.likelihood import COLUMNS, FlowLikelihood
from pipeline.networks.saved import load_adapter, load_network
from pipeline.tasks.data import open_data
from pipeline.tasks.settings import DetectionSettings
from stages.common import stage_options
from stages.declared import load_declared
from stages.exit_codes import exit_codes

logger = logging.getLogger(__name__)


@click.command()
@stage_options("trace_flow")
@exit_codes
def main(
    params_path: Path,
    data: Path,
    teacher: Path,
    student: Path,
    steps: Path,
    by_num_steps: Path,
    likelihood: Path,
    ensemble: Path,
) -> None:
    """Report how the student's flow moves on the test split, and what the members of its ensemble know.

    The tables stay empty for a method without a flow, the last one where nothing is averaged.
    """
    base = load_declared("trace_flow", params_path, "base", Base)
    candidates = sorted(load_declared("trace_flow", params_path, "calibrate_steps", CalibrateSteps).candidates)
    device = set_up_torch("trace_flow", base)
    detections = load_declared("trace_flow", params_path, "detections", DetectionSettings).plain()
    network, about = load_network(student)
    prepared = open_data(data, detections, about["arguments"])
    flows = traced_flows(network, load_adapter(student))
    traces: dict[int, list[Row]] = {}
    summary: list[Row] = []
    likely: list[Row] = []
    together: list[Row] = []
    members = find_members(network, flows, candidates[-1])
    frozen = load_frozen_teacher(teacher, about, device) if flows is not None or members is not None else None
    if members is not None:
        calib, test = prepared.split("calib"), prepared.split("test")
        together = ensemble_rows(
            members, frozen, calib=calib, test=test, batch_size=prepared.task.batch_size, device=device
        )
    if flows is not None:
        diagnostics = FlowDiagnostics(flows, frozen, prepared.task)
        split = prepared.split("test")
        traces = {num_steps: diagnostics.trace(split, num_steps, device) for num_steps in candidates}
        summary = diagnostics.without_a_step(split, device)
        summary += [row for num_steps, rows in traces.items() for row in diagnostics.summarize(rows, num_steps)]
        if frozen is not None:
            figures = FlowLikelihood(flows, frozen, prepared.task.batch_size, device)
            tried = [network.num_steps or 0 for network in with_each_num_steps(flows.student, candidates)]
            calib = prepared.split("calib")
            noise = figures.fit(calib, tried)
            likely = figures.rows(split, noise)
            exact = ContinuousLikelihood(flows, frozen, {name: one.scale for name, one in noise.items()}, device)
            likely = [row | exact.figures(row["flow"], row["num_steps"], calib=calib, test=split) for row in likely]
    primary = prepared.task.primary
    write_csv(steps, columns(prepared.task), traces[candidates[-1]] if traces else [])
    write_csv(by_num_steps, summary_columns(prepared.task), summary)
    write_csv(likelihood, COLUMNS, likely)
    write_csv(ensemble, ENSEMBLE_COLUMNS, together)
    if summary:
        words = prepared.task.primary_in_words
        logger.info("after %d steps: %s %.2f%%", candidates[-1], words, 100 * summary[-1][primary])


if __name__ == "__main__":
    main()
