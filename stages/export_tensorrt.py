"""Build the TensorRT engine where the probe says that it can be built."""

import logging
from pathlib import Path

import click

from pipeline.export.tensorrt import EnginePlan, build_engine, write_skipped
from pipeline.files import read_json, replaced_folder
from pipeline.params_file import load_params
from stages.common import exit_codes, params_option, path_option

logger = logging.getLogger(__name__)


@click.command()
@params_option
@path_option("--onnx", "Folder of the ONNX export.")
@path_option("--environment", "Facts of the probe: what this host can build.")
@path_option("--out", "Folder to write: model.plan and status.json.")
@exit_codes
def main(params_path: Path, onnx: Path, environment: Path, out: Path) -> None:
    """Build the engine, or write why it was skipped and the command for the target device."""
    params = load_params(params_path)
    height, width = read_json(onnx / "manifest.json")["image_size"]
    plan = EnginePlan(onnx / "model.onnx", (height, width), **params.export_tensorrt.model_dump())
    host = read_json(environment)["tensorrt"]
    with replaced_folder(out) as folder:
        status = build_engine(folder, plan, host) if host["buildable"] else write_skipped(folder, plan, host)
    logger.info("%s: %s", status["status"], status.get("reason", status.get("engine")))


if __name__ == "__main__":
    main()
