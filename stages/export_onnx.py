"""Export the calibrated student to ONNX in each precision, and prove every file equal to the trained network."""

import logging
from pathlib import Path

import click

from pipeline.core.files import Json, replaced_folder, sha256, write_json
from pipeline.core.torch_setup import set_up_torch
from pipeline.data.dataset import read_info, read_split
from pipeline.export.onnx.exporter import onnx_metadata
from pipeline.export.onnx.manifest import describe_files, write_samples
from pipeline.export.onnx.precisions import Source, export_precisions
from pipeline.networks.saved import load_network, read_num_steps
from pipeline.package.reader import MANIFEST, SAMPLES
from pipeline.params.loading import load_params
from stages.common import exit_codes, params_option, path_option

logger = logging.getLogger(__name__)


@click.command()
@params_option
@path_option("--data", "Packed data.")
@path_option("--student", "Folder of the student.")
@path_option("--calibration", "Folder of the calibration.")
@path_option("--out", "Folder to write: an ONNX file for each precision, manifest.json, samples.safetensors.")
@exit_codes
def main(params_path: Path, data: Path, student: Path, calibration: Path, out: Path) -> None:
    """Write the ONNX files and their manifest; a gate that fails leaves none."""
    params = load_params(params_path)
    settings = params.export_onnx
    set_up_torch("export_onnx", **params.base.model_dump())
    network, about = load_network(student)
    num_steps = read_num_steps(calibration)
    info, test, calib = read_info(data), read_split(data, "test"), read_split(data, "calib")
    shown = calib.spread(settings.calibration.num_images).pixels
    logger.info("exporting %s, sampling steps: %s", about["backbone"], num_steps or "none")
    source = Source(
        network, num_steps, shown, onnx_metadata(about, info, num_steps),
        opset=settings.opset, input_dtype=settings.input, collapse=settings.collapse,
        method=settings.calibration.method,
    )  # fmt: skip
    with replaced_folder(out) as folder:
        exported = export_precisions(source, folder, settings.precisions)
        gates = settings.gates.model_dump()
        files = describe_files(exported, source, test, batch_sizes=settings.batch_sizes, gates=gates)
        write_samples(folder / SAMPLES, test.spread(settings.num_samples), network, num_steps)
        manifest: Json = {"files": files, "gates": gates, "image_size": list(info.image_size), "input": settings.input}
        manifest |= {"num_steps": num_steps, "opset": settings.opset}
        calibrated = {"split_sha256": sha256(data / "calib.safetensors"), "num_images": len(shown)}
        manifest["int8_calibration"] = calibrated | {"method": settings.calibration.method}
        write_json(folder / MANIFEST, manifest)


if __name__ == "__main__":
    main()
