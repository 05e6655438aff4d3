"""Judge one runtime on the test split: accuracy, parity with the trained network, latency."""

import logging
from pathlib import Path

import click

from pipeline.core.files import write_csv, write_json
from pipeline.core.torch_setup import set_up_torch
from pipeline.data.dataset import read_info, read_split
from pipeline.evaluation.open_runtimes import RUNTIMES, Options, open_runtimes
from pipeline.evaluation.runtime_report import evaluate_runtimes
from pipeline.networks.saved import load_network, read_num_steps
from pipeline.params.loading import load_params
from pipeline.tasks.classification.metrics import confusion_rows
from pipeline.tasks.classification.parity import Gate
from pipeline.tasks.classification.proof import trained_logits
from stages.common import exit_codes, params_option, path_option

logger = logging.getLogger(__name__)


@click.command()
@click.argument("runtime_name", metavar="RUNTIME", type=click.Choice(sorted(RUNTIMES)))
@params_option
@path_option("--data", "Packed data.")
@path_option("--student", "Folder of the trained student, the reference.")
@path_option("--calibration", "Folder of the calibration.")
@path_option("--artifact", "Folder of what is judged: the student, the ONNX export or the TensorRT engine.")
@path_option("--out", "JSON report to write.")
@path_option("--scores", "JSON to write: what of the report is the same in every run, for the stages that follow.")
@path_option("--confusion", "CSV to write: actual and predicted class of each image.")
@exit_codes
def main(
    runtime_name: str, params_path: Path, data: Path, student: Path, calibration: Path, artifact: Path, out: Path,
    scores: Path, confusion: Path,
) -> None:  # fmt: skip
    """Write the report of RUNTIME; fails where it differs from the trained network by more than the gates allow."""
    params = load_params(params_path)
    settings = params.evaluate
    device = set_up_torch(
        "evaluate", seed=params.base.seed, device=params.base.device, deterministic=params.base.deterministic,
        num_threads=settings.num_threads,
    )  # fmt: skip
    num_steps = read_num_steps(calibration)
    opened = open_runtimes(runtime_name, artifact, Options(num_steps, settings.provider, settings.num_threads, device))
    columns = ("actual", "predicted")
    if isinstance(opened, str):
        logger.info("skipped: %s", opened)
        write_csv(confusion, columns, [])
        for path in (scores, out):
            write_json(path, {"status": "skipped", "reason": opened})
        return
    info, test = read_info(data), read_split(data, "test")
    gates = {precision: Gate(**gate) for precision, gate in params.export_onnx.gates.model_dump().items()}
    gates["fp32"] = Gate(settings.max_abs_diff, 0.0, settings.min_top1_agreement, settings.max_drop)
    timing = {
        "image_size": info.image_size, "batch_sizes": settings.latency_batch_sizes,
        "warmup": settings.latency_warmup, "iterations": settings.latency_iterations,
    }  # fmt: skip
    reference = trained_logits(load_network(student)[0], num_steps, test, settings.batch_size)
    found = evaluate_runtimes(opened, test, reference, batch_size=settings.batch_size, gates=gates, timing=timing)
    write_csv(confusion, columns, confusion_rows(found.logits, test.labels.numpy(), info.classes))
    write_json(scores, found.scores)
    write_json(out, found.report)


if __name__ == "__main__":
    main()
