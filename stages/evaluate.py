"""Evaluate one runtime on the test split: scores, parity with the trained network, latency.

Where there is nothing to evaluate, as without an engine, PyTorch is not imported.
"""

import logging
from pathlib import Path

import click

from pipeline.core.files import write_csv, write_json
from pipeline.core.records import DataRecord, read_record
from pipeline.core.settings import Base
from pipeline.evaluation.runtimes import RUNTIMES, Options
from pipeline.evaluation.settings import Evaluate
from pipeline.export.precisions import FP32, PRECISIONS
from pipeline.export.settings import ExportOnnx
from pipeline.tasks.settings import DetectionSettings
from pipeline.tasks.table import task_of_data
from stages.common import stage_options
from stages.declared import load_declared
from stages.exit_codes import exit_codes

logger = logging.getLogger(__name__)


@click.command()
@click.argument("runtime_name", metavar="RUNTIME", type=click.Choice(list(RUNTIMES)))
@stage_options("evaluate")
@exit_codes
def main(
    runtime_name: str,
    params_path: Path,
    data: Path,
    student: Path,
    calibration: Path,
    artifact: Path,
    out: Path,
    scores: Path,
    predictions: Path,
) -> None:
    """Write the report of RUNTIME; fails where it differs from the trained network by more than the gates allow."""
    entry = RUNTIMES[runtime_name]
    reason = None if entry.missing is None else entry.missing(artifact)
    if reason is not None:
        task = task_of_data(read_record(data / "data.json", DataRecord)["task"], data)
        logger.info("skipped: %s", reason)
        write_csv(predictions, task.image_columns, [])
        for path in (scores, out):
            write_json(path, {"status": "skipped", "reason": reason})
        return

    from pipeline.core.torch_setup import set_up_torch
    from pipeline.data.dataset import read_names
    from pipeline.evaluation.calibration_file import load_calibrated
    from pipeline.evaluation.runtime_report import evaluate_runtimes
    from pipeline.tasks.data import open_data
    from pipeline.tasks.reference import reference

    base = load_declared("evaluate", params_path, "base", Base)
    settings = load_declared("evaluate", params_path, "evaluate", Evaluate)
    gates = load_declared("evaluate", params_path, "export_onnx", ExportOnnx).gates
    device = set_up_torch("evaluate", base.model_copy(update={"num_threads": settings.num_threads}))
    network, about = load_calibrated(student, calibration)
    detections = load_declared("evaluate", params_path, "detections", DetectionSettings).plain()
    prepared = open_data(data, detections, about["arguments"])
    task, signature = prepared.task, prepared.signature()
    options = Options(network, prepared.task, signature, settings.provider, settings.num_threads, device)
    opened = entry.load()(artifact, options)
    allowed = {name: settings.placed_gate if name == FP32 else gates.placed(name) for name in PRECISIONS}
    trained = reference(task, network, signature, prepared.split("test"), settings.batch_size)
    names, class_names = read_names(data, "test"), prepared.info.class_names
    found = evaluate_runtimes(opened, trained, settings, allowed, class_names)
    write_csv(predictions, task.image_columns, task.image_rows(names, found.outputs, trained.truth, class_names))
    write_json(scores, found.scores)
    write_json(out, found.report)


if __name__ == "__main__":
    main()
