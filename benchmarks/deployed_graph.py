"""Latency of what deploys against the plain student, ONNX Runtime and PyTorch, in one run.

    python -m benchmarks.deployed_graph                    # wrn_16_2 with the conv meta-encoder, K = 1, 2, 4
    python -m benchmarks.deployed_graph --output benchmarks/results/deployed-graph/HOST.json

The networks have random weights: latency does not depend on them. All runtimes of a table take turns of ten calls;
figures are medians, and ratios are those of medians within the table.
"""

import itertools
import tempfile
from pathlib import Path

import click
import numpy as np
import torch

from benchmarks.measuring import output_option, write_result
from benchmarks.networks import CLASSES, SIZE, exported, flow_student
from models.deploy import with_num_steps
from pipeline.export.onnx.files import Source, export_precisions
from pipeline.export.settings import ExportOnnx
from pipeline.package.benchmark import latency_table, measure_latency
from pipeline.runtimes.base import Runtime
from pipeline.runtimes.latency import describe_protocol
from pipeline.runtimes.onnx import OnnxRuntime
from pipeline.runtimes.torch import TorchRuntime
from pipeline.tasks.table import get_task

PLAIN = "plain student"


def build(
    folder: Path, backbone: str, steps: tuple[int, ...], *, general: bool, int8: bool, compiled: bool
) -> dict[str, Runtime]:
    """Return the plain student, every K as float32 in its smallest and its general form, and the largest as INT8."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    student = flow_student(backbone).eval()
    shown = np.random.default_rng(0).integers(0, 256, (64, 3, *SIZE), dtype=np.uint8)
    task = get_task("classification")
    names = [str(number) for number in range(CLASSES)]
    signature = task.signature(image_size=SIZE, input_dtype="float32", class_names=names)
    networks = {num_steps: with_num_steps(student, num_steps) for num_steps in steps}
    largest = networks[max(steps)]
    source = Source(largest, signature, task.training(), shown, {}, ExportOnnx())
    runtimes: dict[str, Runtime] = {PLAIN: exported(largest.without_flows(), folder / "plain.onnx")}
    for num_steps in steps:
        work = folder / str(num_steps)
        work.mkdir()
        precisions = ["fp32", "int8-cpu"] if int8 and num_steps == max(steps) else ["fp32"]
        for file in export_precisions(source._replace(network=networks[num_steps]), work, precisions).files:
            runtimes[f"K = {num_steps}, {file.precision}, {file.form}"] = OnnxRuntime(file.path)
        if general:
            form = exported(networks[num_steps].general_form(), work / "general.onnx")
            runtimes[f"K = {num_steps}, fp32, general"] = form
    if compiled:
        network = torch.compile(largest.general_form(), dynamic=False)
        cpu = torch.device("cpu")
        runtime = TorchRuntime(network, output_names=signature.output_names, device=cpu)
        runtimes[f"K = {max(steps)}, torch compiled"] = runtime
    return runtimes


@click.command()
@click.option("--backbone", default="wrn_16_2", show_default=True)
@click.option("--steps", type=int, multiple=True, default=(1, 2, 4), show_default=True)
@click.option("--batch", "batch_sizes", type=int, multiple=True, default=(1, 64), show_default=True)
@click.option("--iterations", type=int, default=100, show_default=True)
@click.option("--general/--no-general", default=True, show_default=True, help="Every K in its general form, too.")
@click.option("--int8/--no-int8", default=True, show_default=True, help="The largest K as INT8, too.")
@click.option("--compiled/--no-compiled", default=True, show_default=True, help="The largest K by torch.compile, too.")
@output_option
def main(
    *,
    backbone: str,
    steps: tuple[int, ...],
    batch_sizes: tuple[int, ...],
    iterations: int,
    output: Path | None,
    **kinds: bool,
) -> None:
    """Print a table of latencies."""
    with tempfile.TemporaryDirectory() as folder:
        runtimes = build(Path(folder), backbone, steps, **kinds)
        timings = {
            size: measure_latency(
                runtimes, baseline=PLAIN, image_size=SIZE, batch_sizes=[size], warmup=10,
                iterations=iterations if size < 16 else max(10, iterations // 5),
            )
            for size in batch_sizes
        }  # fmt: skip
    protocol = f"one thread; {describe_protocol(warmup=10, iterations=iterations)} (a fifth of it from batch 16 on)"
    click.echo(f"{latency_table([*itertools.chain(*timings.values())], baseline=PLAIN)}\n{protocol}")
    rows = {size: {timing.name: timing._asdict() for timing in found} for size, found in timings.items()}
    write_result(output, protocol=protocol, timings=rows)


if __name__ == "__main__":
    main()
