"""Build the TensorRT engines where the probe says that they can be built."""

import logging
from pathlib import Path

import click

from pipeline.core.files import read_json, replaced_folder
from pipeline.export.tensorrt.engines import plans, write_engines
from pipeline.params.loading import load_params
from stages.common import exit_codes, params_option, path_option

logger = logging.getLogger(__name__)


@click.command()
@params_option
@path_option("--onnx", "Folder of the ONNX export.")
@path_option("--environment", "Facts of the probe: what this host can build.")
@path_option("--out", "Folder to write: engines, what each of them is, and status.json.")
@click.option("--cache", type=click.Path(path_type=Path), default=Path(".cache"), help="Folder of the timing cache.")
@exit_codes
def main(params_path: Path, onnx: Path, environment: Path, out: Path, cache: Path) -> None:
    """Build and prove the engines, or write why they were skipped and the commands for the target device."""
    params = load_params(params_path)
    settings = params.export_tensorrt.model_dump()
    planned = plans(onnx, settings.pop("precisions"), settings)
    host = read_json(environment)["tensorrt"]
    with replaced_folder(out) as folder:
        status = write_engines(folder, planned, host=host, cache=cache)
    for precision, tables in status["support"].items():
        for major, found in tables.items():
            verdict = "accepts" if found["accepted"] else f"does not take ({'; '.join(found['reasons'][:3])})"
            logger.info("%s: by its operator table TensorRT %s %s it (no guarantee)", precision, major, verdict)
    logger.info("%s: %s", status["status"], status["reason"] or ", ".join(status["engines"].values()))


if __name__ == "__main__":
    main()
