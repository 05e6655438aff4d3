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

sys.path.insert(0, str(Path(__file__).parent.parent))

from models.deploy import deployable, without_steps
from models.students import build_flow_student
from pipeline.export.onnx.exporter import export_onnx
from pipeline.export.onnx.precisions import Source, export_precisions
from pipeline.package.benchmark import latency_table, measure_latency
from pipeline.runtimes.base import Runtime
from pipeline.runtimes.latency import describe_protocol
from pipeline.runtimes.onnx import OnnxRuntime
from pipeline.runtimes.torch import TorchRuntime

SIZE = (32, 32)
PLAIN = "plain student"
STATISTICS = {"mean": [0.507, 0.487, 0.441], "std": [0.267, 0.256, 0.276]}


def build(folder: Path, steps: tuple[int, ...], *, compiled: bool) -> dict[str, Runtime]:
    """Return the plain student, every K as float32 in its smallest and its general form, and the largest as INT8."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    names = {"backbone": "wrn_16_2", "schedule": "rectified", "meta_encoder": "conv"}
    student = build_flow_student(num_classes=100, time_scale=1.0, **names, **STATISTICS).eval()
    shown = np.random.default_rng(0).integers(0, 256, (64, 3, *SIZE), dtype=np.uint8)
    source = Source(student, None, shown, {}, opset=20, input_dtype="float32", collapse=True, method="minmax")
    export_onnx(without_steps(student), folder / "plain.onnx", image_size=SIZE, opset=20, metadata={})
    runtimes: dict[str, Runtime] = {PLAIN: OnnxRuntime(folder / "plain.onnx")}
    for num_steps in steps:
        work = folder / str(num_steps)
        work.mkdir()
        precisions = ["fp32", "int8-cpu"] if num_steps == max(steps) else ["fp32"]
        for file in export_precisions(source._replace(num_steps=num_steps), work, precisions):
            runtimes[f"K = {num_steps}, {file.precision}, {file.form}"] = OnnxRuntime(file.path)
        general = work / "general.onnx"
        export_onnx(deployable(student, num_steps), general, image_size=SIZE, opset=20, metadata={})
        runtimes[f"K = {num_steps}, fp32, general"] = OnnxRuntime(general)
    if compiled:
        network = torch.compile(deployable(student, max(steps)), dynamic=False)
        runtimes[f"K = {max(steps)}, torch compiled"] = TorchRuntime(network, device=torch.device("cpu"))
    return runtimes


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
