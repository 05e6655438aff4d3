"""Follow the state along the flow: distance to the teacher, straightness, accuracy of each step."""

import logging
from pathlib import Path

import click

from pipeline.core.files import write_csv
from pipeline.core.torch_setup import set_up_torch
from pipeline.data.dataset import read_split
from pipeline.distillation.build import frozen_teacher
from pipeline.evaluation.flow_diagnostics import COLUMNS, SUMMARY_COLUMNS, summarize_trace, trace, traced
from pipeline.networks.saved import load_adapter, load_network
from pipeline.params.loading import load_params
from stages.common import exit_codes, params_option, path_option

logger = logging.getLogger(__name__)


@click.command()
@params_option
@path_option("--data", "Packed data.")
@path_option("--teacher", "Folder of the teacher.")
@path_option("--student", "Folder of the student.")
@path_option("--steps", "CSV to write: each step of the longest walk.")
@path_option("--by-num-steps", "CSV to write: a row for each number of steps.")
@exit_codes
def main(params_path: Path, data: Path, teacher: Path, student: Path, steps: Path, walks: Path) -> None:
    """Report how the student's flow moves on the test split; the tables stay empty for a method without one."""
    params = load_params(params_path)
    device = set_up_torch("trace_flow", **params.base.model_dump())
    network, about = load_network(student)
    subject = traced(network, load_adapter(student), frozen_teacher(teacher, about, device))
    candidates = sorted(params.calibrate_steps.candidates) if subject else []
    split = read_split(data, "test")
    traces = {num_steps: trace(subject, split, num_steps, device) for num_steps in candidates} if subject else {}
    write_csv(steps, COLUMNS, traces[candidates[-1]] if traces else [])
    write_csv(walks, SUMMARY_COLUMNS, [row for n, rows in traces.items() for row in summarize_trace(rows, n)])
    if traces:
        last = traces[candidates[-1]][-1]
        logger.info("after %d steps: accuracy %.2f%%", candidates[-1], 100 * last["ensemble_accuracy"])


if __name__ == "__main__":
    main()
