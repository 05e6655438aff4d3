"""Judge one runtime on the test split: accuracy, parity with the trained network, latency."""

import logging
from pathlib import Path

import click

from pipeline.artifacts import load_network, read_num_steps
from pipeline.benchmark import benchmark
from pipeline.data.store import read_info, read_split
from pipeline.evaluation import evaluate, require_equal, trained_logits
from pipeline.files import write_csv, write_json
from pipeline.metrics import confusion_rows
from pipeline.params_file import load_params
from pipeline.runtimes.opening import RUNTIMES, Options, open_runtime
from pipeline.seeding import set_up_torch
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
    opened = open_runtime(runtime_name, artifact, Options(num_steps, settings.num_threads, device))
    columns = ("actual", "predicted")
    if isinstance(opened, str):
        logger.info("skipped: %s", opened)
        write_csv(confusion, columns, [])
        for path in (scores, out):
            write_json(path, {"status": "skipped", "reason": opened})
        return
    info, test = read_info(data), read_split(data, "test")
    reference = trained_logits(load_network(student)[0], num_steps, test, settings.batch_size)
    found = evaluate(opened, test, reference, settings.batch_size)
    logger.info("accuracy %.2f%%, logits differ by at most %.2g", 100 * found.scores.accuracy, found.parity.max_abs)
    require_equal(
        found, reference, test.labels.numpy(), max_drop=settings.max_drop,
        max_abs_diff=settings.max_abs_diff, min_top1_agreement=settings.min_top1_agreement,
    )  # fmt: skip
    timing = benchmark(
        opened, image_size=info.image_size, batch_sizes=settings.latency_batch_sizes,
        warmup=settings.latency_warmup, iterations=settings.latency_iterations,
    )  # fmt: skip
    write_csv(confusion, columns, confusion_rows(found.logits, test.labels.numpy(), info.classes))
    report = {"status": "evaluated", **found.report()}
    write_json(scores, report)
    write_json(out, report | timing)


if __name__ == "__main__":
    main()
