"""Export the calibrated student to ONNX, and prove the file equal to the trained network."""

import logging
from pathlib import Path

import click

from models.deploy import deployable
from pipeline.artifacts import load_network, read_num_steps
from pipeline.data.store import read_info, read_split
from pipeline.evaluation import prove, trained_logits
from pipeline.export.onnx import export_onnx, onnx_metadata
from pipeline.files import replaced_folder, sha256, write_json
from pipeline.params_file import load_params
from pipeline.runtimes.onnx import OnnxRuntime
from pipeline.seeding import set_up_torch
from stages.common import exit_codes, params_option, path_option

logger = logging.getLogger(__name__)


@click.command()
@params_option
@path_option("--data", "Packed data.")
@path_option("--student", "Folder of the student.")
@path_option("--calibration", "Folder of the calibration.")
@path_option("--out", "Folder to write: model.onnx, manifest.json.")
@exit_codes
def main(params_path: Path, data: Path, student: Path, calibration: Path, out: Path) -> None:
    """Write model.onnx and its manifest; a gate that fails leaves neither."""
    params = load_params(params_path)
    settings = params.export_onnx
    set_up_torch("export_onnx", **params.base.model_dump())
    network, about = load_network(student)
    num_steps = read_num_steps(calibration)
    info, test = read_info(data), read_split(data, "test")
    reference = trained_logits(network, num_steps, test, max(settings.batch_sizes))
    logger.info("exporting %s, sampling steps: %s", about["backbone"], num_steps or "none")
    with replaced_folder(out) as folder:
        model = folder / "model.onnx"
        metadata = onnx_metadata(about, info, num_steps)
        export_onnx(
            deployable(network, num_steps), model, image_size=info.image_size, opset=settings.opset, metadata=metadata
        )
        gates = prove(
            OnnxRuntime(model, num_threads=1), test, reference,
            what=model.name, batch_sizes=settings.batch_sizes,
            max_abs_diff=settings.max_abs_diff, min_top1_agreement=settings.min_top1_agreement,
        )  # fmt: skip
        logger.info("proved: logits differ by at most %.2g on the test split", gates["test_split"]["max_abs"])
        entry = {"sha256": sha256(model), "bytes": model.stat().st_size, "precision": "fp32", "gates": gates}
        manifest = {"files": {model.name: entry}, "opset": settings.opset, "num_steps": num_steps}
        write_json(folder / "manifest.json", manifest | {"image_size": list(info.image_size)})


if __name__ == "__main__":
    main()
