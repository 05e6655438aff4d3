"""Build the TensorRT engines where the probe says that they can be built."""

import logging
from pathlib import Path

import click

from pipeline.core.files import replaced_folder
from pipeline.core.records import ManifestRecord, ProbedHost, read_record
from pipeline.export.folder import MANIFEST
from pipeline.export.tensorrt.exported_engines import plan_engines, write_engines
from pipeline.export.tensorrt.settings import ExportTensorrt
from pipeline.runtimes.engine_file import read_signature
from stages.common import stage_options
from stages.declared import load_declared
from stages.exit_codes import exit_codes

logger = logging.getLogger(__name__)


@click.command()
@stage_options("export_tensorrt")
@click.option("--cache", type=click.Path(path_type=Path), default=Path(".cache"), help="Folder of the timing cache.")
@exit_codes
def main(params_path: Path, onnx: Path, environment: Path, out: Path, cache: Path) -> None:
    """Build and verify the engines, or write why they were skipped and the commands for the target device."""
    settings = load_declared("export_tensorrt", params_path, "export_tensorrt", ExportTensorrt)
    planned = plan_engines(onnx, read_signature(read_record(onnx / MANIFEST, ManifestRecord)["signature"]), settings)
    host = read_record(environment, ProbedHost)["tensorrt"]
    with replaced_folder(out) as folder:
        status = write_engines(folder, planned, host=host, cache=cache)
    for precision, tables in status["support"].items():
        for major, found in tables.items():
            verdict = "accepts" if found["accepted"] else f"does not take ({'; '.join(found['reasons'][:3])})"
            logger.info("%s: by its operator table TensorRT %s %s it (no guarantee)", precision, major, verdict)
    for precision, reason in status["left_out"].items():
        logger.info("%s: no engine, since the ONNX export left it out (%s)", precision, reason)
    logger.info("%s: %s", status["status"], status["reason"] or ", ".join(status["engines"].values()))


if __name__ == "__main__":
    main()
