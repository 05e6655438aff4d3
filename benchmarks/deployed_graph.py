"""Latency of what deploys against the plain student, ONNX Runtime and PyTorch, in one run.

    python benchmarks/deployed_graph.py                    # wrn_16_2 with the conv meta-encoder, K = 1, 2, 4
    python benchmarks/deployed_graph.py --output results.json

The networks have random weights: latency does not depend on them. All runtimes of a table take turns of ten calls;
figures are medians, and ratios are those of medians within the table.
"""

import json
import sys
import tempfile
from pathlib import Path

import click
import numpy as np
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parent.parent))

from models.deploy import with_num_steps
from models.students import build_flow_student
from pipeline.core.signature import image_input
from pipeline.export.onnx.exporter import export_image_network
from pipeline.export.onnx.files import Source, export_precisions
from pipeline.export.settings import ExportOnnx
from pipeline.package.benchmark import latency_table, measure_latency
from pipeline.runtimes.base import Runtime
from pipeline.runtimes.latency import describe_protocol
from pipeline.runtimes.onnx import OnnxRuntime
from pipeline.runtimes.torch import TorchRuntime
from pipeline.tasks.table import get_task

SIZE = (32, 32)
CLASSES = 100
PLAIN = "plain student"
STATISTICS = {"mean": [0.507, 0.487, 0.441], "std": [0.267, 0.256, 0.276]}


def build(folder: Path, steps: tuple[int, ...], *, compiled: bool) -> dict[str, Runtime]:
    """Return the plain student, every K as float32 in its smallest and its general form, and the largest as INT8."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    flow = {"backbone": "wrn_16_2", "schedule": "rectified", "meta_encoder": "conv"}
    student = build_flow_student(num_classes=CLASSES, time_scale=1.0, **flow, **STATISTICS).eval()
    shown = np.random.default_rng(0).integers(0, 256, (64, 3, *SIZE), dtype=np.uint8)
    task = get_task("classification")
    names = [str(number) for number in range(CLASSES)]
    signature = task.signature(image_size=SIZE, input_dtype="float32", class_names=names)
    networks = {num_steps: with_num_steps(student, num_steps) for num_steps in steps}
    largest = networks[max(steps)]
    source = Source(largest, signature, task.training(), shown, {}, ExportOnnx())
    _export(largest.without_flows(), folder / "plain.onnx", signature.output_names)
    runtimes: dict[str, Runtime] = {PLAIN: OnnxRuntime(folder / "plain.onnx")}
    for num_steps in steps:
        work = folder / str(num_steps)
        work.mkdir()
        precisions = ["fp32", "int8-cpu"] if num_steps == max(steps) else ["fp32"]
        for file in export_precisions(source._replace(network=networks[num_steps]), work, precisions).files:
            runtimes[f"K = {num_steps}, {file.precision}, {file.form}"] = OnnxRuntime(file.path)
        general = work / "general.onnx"
        _export(networks[num_steps].general_form(), general, signature.output_names)
        runtimes[f"K = {num_steps}, fp32, general"] = OnnxRuntime(general)
    if compiled:
        network = torch.compile(largest.general_form(), dynamic=False)
        cpu = torch.device("cpu")
        runtime = TorchRuntime(network, output_names=signature.output_names, device=cpu)
        runtimes[f"K = {max(steps)}, torch compiled"] = runtime
    return runtimes


def _export(network: nn.Module, path: Path, outputs: list[str]) -> None:
    export_image_network(network, path, image_input(SIZE, "float32"), outputs, opset=20, metadata={})


@click.command()
@click.option("--steps", type=int, multiple=True, default=(1, 2, 4), show_default=True)
@click.option("--batch", "batch_sizes", type=int, multiple=True, default=(1, 64), show_default=True)
@click.option("--iterations", type=int, default=100, show_default=True)
@click.option("--compiled/--no-compiled", default=True, show_default=True)
@click.option("--output", type=click.Path(path_type=Path))
def main(
    *, steps: tuple[int, ...], batch_sizes: tuple[int, ...], iterations: int, compiled: bool, output: Path | None
) -> None:
    """Print a table of latencies, and write it where --output says."""
    with tempfile.TemporaryDirectory() as folder:
        runtimes = build(Path(folder), steps, compiled=compiled)
        timings = [
            timing
            for size in batch_sizes
            for timing in measure_latency(
                runtimes, baseline=PLAIN, image_size=SIZE, batch_sizes=[size], warmup=10,
                iterations=iterations if size < 16 else max(10, iterations // 5),
            )
        ]  # fmt: skip
    protocol = f"one thread; {describe_protocol(warmup=10, iterations=iterations)} (a fifth of it from batch 16 on)"
    click.echo(f"{latency_table(timings, baseline=PLAIN)}\n{protocol}")
    if output is not None:
        content = {"protocol": protocol, "timings": [timing._asdict() for timing in timings]}
        output.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
