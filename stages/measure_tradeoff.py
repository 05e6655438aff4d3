"""Measure what accuracy costs: each number of steps in each precision."""

from pathlib import Path

import click

from models.deploy import with_each_num_steps
from pipeline.core.files import replaced_folder, write_json
from pipeline.core.settings import Base
from pipeline.core.torch_setup import set_up_torch
from pipeline.evaluation.calibration_settings import CalibrateSteps
from pipeline.evaluation.settings import Evaluate, MeasureTradeoff
from pipeline.evaluation.tradeoff import measure_tradeoff, table_rows
from pipeline.export.onnx.files import Source, read_exported
from pipeline.export.settings import ExportOnnx
from pipeline.networks.saved import load_network
from pipeline.runtimes.latency import describe_protocol
from pipeline.tasks.data import open_data
from pipeline.tasks.settings import DetectionSettings
from stages.common import stage_options
from stages.declared import load_declared
from stages.exit_codes import exit_codes


@click.command()
@stage_options("measure_tradeoff")
@exit_codes
def main(params_path: Path, data: Path, student: Path, onnx: Path, out: Path) -> None:
    """Export every calibrated number of steps in every precision asked for, but for what is; score and time them."""
    base = load_declared("measure_tradeoff", params_path, "base", Base)
    settings = load_declared("measure_tradeoff", params_path, "measure_tradeoff", MeasureTradeoff)
    export = load_declared("measure_tradeoff", params_path, "export_onnx", ExportOnnx)
    candidates = load_declared("measure_tradeoff", params_path, "calibrate_steps", CalibrateSteps).candidates
    batch_sizes = load_declared("measure_tradeoff", params_path, "evaluate", Evaluate).latency_batch_sizes
    set_up_torch("measure_tradeoff", base)
    detections = load_declared("measure_tradeoff", params_path, "detections", DetectionSettings).plain()
    student_network, about = load_network(student)
    prepared = open_data(data, detections, about["arguments"])
    task, test = prepared.task, prepared.split("test")
    networks = with_each_num_steps(student_network, candidates)
    calibrated_on = prepared.split("calib").spread(export.calibration.num_images).pixels
    source = Source(networks[0], prepared.signature(export.input), prepared.training, calibrated_on, {}, export)
    measured = measure_tradeoff(networks, source, read_exported(onnx, student), task, test, settings, batch_sizes)
    protocol = f"ONNX Runtime, CPU, batch of {settings.batch_size}, {settings.num_threads} thread(s), "
    timed = describe_protocol(warmup=settings.warmup, iterations=settings.iterations)
    report = {
        "points": table_rows(measured.points, task),
        "left_out": [missing._asdict() for missing in measured.left_out],
        "plain": None if measured.plain is None else measured.plain._asdict(),
        "num_images": len(test),
        "network": f"{about['backbone']}, method {about['method']}",
        "protocol": f"{protocol}all files in turns; {timed}",
    }
    with replaced_folder(out) as folder:
        write_json(folder / "tradeoff.json", report)


if __name__ == "__main__":
    main()
