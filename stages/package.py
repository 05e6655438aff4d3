"""Put together what a consumer downloads."""

from pathlib import Path

import click

from pipeline.core.files import read_json, replaced_folder
from pipeline.data.dataset import read_info
from pipeline.package.writer import write_package
from pipeline.params.loading import load_params
from stages.common import exit_codes, params_option, path_option


@click.command()
@params_option
@path_option("--onnx", "Folder of the ONNX export.")
@path_option("--calibration", "Folder of the calibration.")
@path_option("--data", "Packed data.")
@path_option("--tradeoff", "Folder of the trade-off between accuracy and latency.")
@path_option("--evaluation", "JSON scores of ONNX Runtime.")
@path_option("--teacher", "JSON report of the teacher.")
@path_option("--student", "JSON report of the student.")
@path_option("--out", "Folder to write.")
@exit_codes
def main(
    params_path: Path,
    onnx: Path,
    calibration: Path,
    data: Path,
    tradeoff: Path,
    evaluation: Path,
    teacher: Path,
    student: Path,
    out: Path,
) -> None:
    """Write the package."""
    params = load_params(params_path)
    with replaced_folder(out) as folder:
        write_package(
            folder,
            **params.package.model_dump(),
            onnx=onnx,
            calibration=read_json(calibration / "calibration.json"),
            tradeoff=tradeoff,
            info=read_info(data),
            evaluation=read_json(evaluation),
            teacher=read_json(teacher),
            student=read_json(student),
            engine=params.export_tensorrt.model_dump(mode="json"),
        )


if __name__ == "__main__":
    main()
