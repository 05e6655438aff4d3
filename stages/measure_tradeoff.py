"""Measure what accuracy costs: each number of steps in each precision."""

from pathlib import Path

import click

from pipeline.core.files import replaced_folder, write_json
from pipeline.core.torch_setup import set_up_torch
from pipeline.data.dataset import read_split
from pipeline.evaluation.step_calibration import step_candidates
from pipeline.evaluation.tradeoff import measure_tradeoff, plot_tradeoff, table_rows
from pipeline.export.onnx.precisions import Source
from pipeline.networks.saved import load_network, read_num_steps
from pipeline.params.loading import load_params
from pipeline.runtimes.latency import describe_protocol
from stages.common import exit_codes, params_option, path_option


@click.command()
@params_option
@path_option("--data", "Packed data.")
@path_option("--student", "Folder of the student.")
@path_option("--calibration", "Folder of the calibration.")
@path_option("--out", "Folder to write: tradeoff.json and tradeoff.svg.")
@exit_codes
def main(params_path: Path, data: Path, student: Path, calibration: Path, out: Path) -> None:
    """Export every calibrated number of steps in every precision asked for; score, time and plot them."""
    params = load_params(params_path)
    settings, onnx = params.measure_tradeoff, params.export_onnx
    set_up_torch("measure_tradeoff", **params.base.model_dump())
    network, about = load_network(student)
    candidates = step_candidates(network, params.calibrate_steps.candidates)
    shown = read_split(data, "calib").spread(onnx.calibration.num_images).pixels
    source = Source(
        network, None, shown, {}, opset=onnx.opset, input_dtype=onnx.input, collapse=onnx.collapse,
        method=onnx.calibration.method,
    )  # fmt: skip
    timing = {"warmup": settings.warmup, "iterations": settings.iterations}
    sizes = {"batch_size": settings.batch_size, "num_threads": settings.num_threads}
    points = measure_tradeoff(source, candidates, settings.precisions, read_split(data, "test"), **sizes, **timing)
    protocol = f"ONNX Runtime, CPU, batch of {settings.batch_size}, {settings.num_threads} thread(s), "
    protocol += f"all files in turns; {describe_protocol(**timing)}"
    report = {"points": table_rows(points), "protocol": protocol, "chosen": read_num_steps(calibration)}
    with replaced_folder(out) as folder:
        write_json(folder / "tradeoff.json", report)
        plot_tradeoff(points, folder / "tradeoff.svg", title=f"{about['backbone']}, method {about['method']}")


if __name__ == "__main__":
    main()
