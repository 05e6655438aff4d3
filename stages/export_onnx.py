"""Export the calibrated student to ONNX in each precision, and verify every file against the trained network."""

import logging
from pathlib import Path

import click

from pipeline.core.files import Json, replaced_folder, sha256, write_json
from pipeline.core.settings import Base
from pipeline.core.text_table import steps_in_words
from pipeline.core.torch_setup import set_up_torch
from pipeline.evaluation.calibration_file import load_calibrated
from pipeline.export.folder import MANIFEST
from pipeline.export.onnx.exporter import onnx_metadata
from pipeline.export.onnx.files import Source, export_precisions
from pipeline.export.onnx.manifest import describe_files
from pipeline.export.samples import write_samples
from pipeline.export.settings import ExportOnnx
from pipeline.networks.spec import WEIGHTS
from pipeline.runtimes.engine_file import describe_signature
from pipeline.tasks.data import open_data
from pipeline.tasks.reference import reference
from pipeline.tasks.settings import DetectionSettings
from stages.common import stage_options
from stages.declared import load_declared
from stages.exit_codes import exit_codes

logger = logging.getLogger(__name__)


@click.command()
@stage_options("export_onnx")
@exit_codes
def main(params_path: Path, data: Path, student: Path, calibration: Path, out: Path) -> None:
    """Write the ONNX files that pass their gates, and their manifest; where a required one fails, none."""
    base = load_declared("export_onnx", params_path, "base", Base)
    settings = load_declared("export_onnx", params_path, "export_onnx", ExportOnnx)
    set_up_torch("export_onnx", base)
    network, about = load_calibrated(student, calibration)
    detections = load_declared("export_onnx", params_path, "detections", DetectionSettings).plain()
    prepared = open_data(data, detections, about["arguments"])
    info, signature, test = prepared.info, prepared.signature(settings.input), prepared.split("test")
    calibrated_on = prepared.split("calib").spread(settings.calibration.num_images).pixels
    logger.info(
        "exporting %s, sampling steps: %s",
        about["backbone"],
        steps_in_words(network.num_steps),
    )
    prepared.training.check_export(network, calibrated_on)
    facts = prepared.task.output_facts()
    metadata = onnx_metadata(about, info, network.num_steps, facts)
    source = Source(network, signature, prepared.training, calibrated_on, metadata, settings)
    with replaced_folder(out) as folder:
        exported = export_precisions(source, folder, settings.precisions)
        found = describe_files(exported, reference(prepared.task, network, signature, test), settings)
        samples = test.spread(settings.num_samples)
        write_samples(folder, reference(prepared.task, network, signature, samples, batch_size=len(samples)))
        manifest: Json = {**facts, **found._asdict(), "gates": settings.gates.model_dump(mode="json")}
        manifest |= {"image_size": list(info.image_size), "input": settings.input, "opset": settings.opset}
        manifest |= {"task": info.task, "signature": describe_signature(signature), "num_steps": network.num_steps}
        manifest["student_sha256"] = sha256(student / WEIGHTS)
        calibrated = {"split_sha256": sha256(data / "calib.safetensors"), "num_images": len(calibrated_on)}
        manifest["int8_calibration"] = calibrated | {"method": settings.calibration.method}
        write_json(folder / MANIFEST, manifest)


if __name__ == "__main__":
    main()
