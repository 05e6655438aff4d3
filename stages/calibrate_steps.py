"""Choose how many sampling steps the deployed student takes."""

import logging
from pathlib import Path

import click

from models.deploy import with_each_num_steps
from pipeline.core.errors import UserError
from pipeline.core.files import replaced_folder, write_csv, write_json
from pipeline.core.settings import Base
from pipeline.core.text_table import steps_in_words
from pipeline.core.torch_setup import set_up_torch
from pipeline.distillation.frozen_teacher import load_frozen_teacher
from pipeline.distillation.traced_flows import traced_flows
from pipeline.evaluation.calibration_file import CALIBRATION
from pipeline.evaluation.calibration_settings import CalibrateSteps, criterion_fault
from pipeline.evaluation.likelihood import FlowLikelihood, fitted_bound, trivial_bound
from pipeline.evaluation.step_calibration import StepCalibration, by_bound, by_score, choose_steps
from pipeline.networks.saved import load_adapter, load_network
from pipeline.tasks.data import open_data
from pipeline.tasks.settings import DetectionSettings
from stages.common import stage_options
from stages.declared import load_declared
from stages.exit_codes import exit_codes

logger = logging.getLogger(__name__)


@click.command()
@stage_options("calibrate_steps")
@exit_codes
def main(params_path: Path, data: Path, teacher: Path, student: Path, out: Path, curve: Path) -> None:
    """Score each candidate number of steps on the calibration split, never on test, and choose one."""
    base = load_declared("calibrate_steps", params_path, "base", Base)
    settings = load_declared("calibrate_steps", params_path, "calibrate_steps", CalibrateSteps)
    device = set_up_torch("calibrate_steps", base)
    detections = load_declared("calibrate_steps", params_path, "detections", DetectionSettings).plain()
    network, about = load_network(student)
    frozen = load_frozen_teacher(teacher, about, device)
    fault = criterion_fault(settings.criterion, about["method"], has_teacher=frozen is not None)
    if fault is not None:
        raise UserError(fault)
    prepared = open_data(data, detections, about["arguments"])
    task, split = prepared.task, prepared.split("calib")
    networks = with_each_num_steps(network, settings.candidates)
    calibration = StepCalibration(prepared, split, device)
    points = [calibration.measure(network) for network in networks]
    decider = by_score(task.primary, settings.tolerance, in_words=task.primary_in_words)
    flows = traced_flows(network, load_adapter(student))
    if points[0].num_steps is not None and flows is not None and frozen is not None:
        noise = FlowLikelihood(flows, frozen, task.batch_size, device).fit(split, [point.steps for point in points])
        points = [point._replace(bound=fitted_bound(noise, point.steps)) for point in points]
        if settings.criterion == "bound":
            decider = by_bound(trivial_bound(noise), settings.tolerance)
    latency = [calibration.measure_latency(network.smallest_form(prepared.info.image_size)) for network in networks]
    plain = calibration.measure_plain(networks[0])
    choice = choose_steps(points, decider, latency_ms=latency, max_latency_ms=settings.max_latency_ms)
    logger.info("sampling steps: %s (%s)", steps_in_words(choice.num_steps), choice.reason)
    rows = [point.row() for point in points]
    with replaced_folder(out) as folder:
        found = {**choice._asdict(), "plain": plain and plain._asdict(), "curve": rows, "num_images": len(split)}
        write_json(folder / CALIBRATION, found)
    shown = [{**row, "latency_ms": spent} for row, spent in zip(rows, latency, strict=True)]
    columns = list(shown[0])
    if plain is not None and rows[0]["num_steps"] != 0:
        spent = calibration.measure_latency(networks[0].without_flows())
        shown.insert(0, {"num_steps": 0, "macs": plain.macs, "latency_ms": spent})
    write_csv(curve, columns, shown)


if __name__ == "__main__":
    main()
