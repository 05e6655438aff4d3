"""Choose how many sampling steps the deployed student takes."""

import logging
from pathlib import Path

import click

from pipeline.core.files import replaced_folder, write_csv, write_json
from pipeline.core.torch_setup import set_up_torch
from pipeline.data.dataset import read_split
from pipeline.evaluation.step_calibration import choose_steps, measure_latency, measure_steps, step_candidates
from pipeline.networks.saved import load_network
from pipeline.params.loading import load_params
from stages.common import exit_codes, params_option, path_option

logger = logging.getLogger(__name__)


@click.command()
@params_option
@path_option("--data", "Packed data.")
@path_option("--student", "Folder of the student.")
@path_option("--out", "Folder to write: calibration.json.")
@path_option("--curve", "CSV to write: accuracy and latency for each number of steps.")
@exit_codes
def main(params_path: Path, data: Path, student: Path, out: Path, curve: Path) -> None:
    """Score each candidate number of steps on the calibration split, never on test, and choose one."""
    params = load_params(params_path)
    settings = params.calibrate_steps
    device = set_up_torch("calibrate_steps", **params.base.model_dump())
    network, _ = load_network(student)
    split = read_split(data, "calib")
    candidates = step_candidates(network, settings.candidates)
    points = [measure_steps(network, num_steps, split, device) for num_steps in candidates]
    latency = [measure_latency(network, num_steps, split, device) for num_steps in candidates]
    choice = choose_steps(
        points, tolerance=settings.tolerance, latency_ms=latency, max_latency_ms=settings.max_latency_ms
    )
    logger.info("sampling steps: %s (%s)", choice.num_steps or "none", choice.reason)
    rows = [point._asdict() for point in points]
    with replaced_folder(out) as folder:
        write_json(folder / "calibration.json", {**choice._asdict(), "curve": rows, "num_images": len(split)})
    shown = [{**row, "latency_ms": spent} for row, spent in zip(rows, latency, strict=True)]
    write_csv(curve, list(shown[0]), shown)


if __name__ == "__main__":
    main()
