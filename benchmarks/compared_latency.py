"""How long the students of a comparison, and its teacher, take for an image.

    python -m benchmarks.compared_latency cifar10-long --output benchmarks/results/cifar10-long/latency.json

It takes three minutes.

A latency is that of a graph, whatever its weights: they are random, and methods that deploy the same graph share one
measurement. Students are timed in the form that deploys today. The script stops unless that, or the general form that
older runs counted, has the multiply-adds of the committed runs.
"""

import csv
import tempfile
from collections.abc import Hashable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import click
import onnx
import torch
from torch import nn

from benchmarks.measuring import output_option, write_result
from benchmarks.networks import exported
from models.deploy import with_each_num_steps
from pipeline.comparison.config import Comparison, Side, changed_params, folder_name, load_comparison
from pipeline.networks.complexity import count_macs
from pipeline.params.schema import load_params
from pipeline.preflight.assumed_networks import assumed_data, assumed_student
from pipeline.runtimes.latency import describe_protocol, percentiles, random_pixels, time_in_turns
from pipeline.runtimes.onnx import OnnxRuntime

ROOT = Path(__file__).parent
WARMUP = 20
CPU = torch.device("cpu")


class Form(NamedTuple):
    """A network as it deploys."""

    name: str
    """That of its method, with the number of steps where it takes some."""
    network: nn.Module
    image_size: tuple[int, int]
    macs: set[int]
    """Multiply-adds of the student in its general form and in this one; none of the teacher."""


def forms(comparison: Comparison, *, classes: int) -> Iterator[Form]:
    """Yield the teacher, and each method with each number of steps that calibration tries."""
    with tempfile.TemporaryDirectory() as folder:
        for method, changes in comparison.methods.items():
            path = Path(folder, f"{folder_name(method)}.yaml")
            path.write_text(changed_params(comparison, changes), encoding="utf-8")
            params = load_params(path)
            task, info = assumed_data(params, count=classes)
            if method == comparison.baseline:
                spec = task.plain_network(params.train_teacher, info, mean=[*info.mean], std=[*info.std])
                yield Form("teacher", task.build_plain(spec).eval(), info.image_size, set())
            student = assumed_student(params, count=classes)
            for form in with_each_num_steps(student.eval(), params.calibrate_steps.candidates):
                name = str(Side(method, form.num_steps))
                smallest, general = form.smallest_form(info.image_size), form.general_form()
                macs = {count_macs(network, info.image_size, CPU) for network in (smallest, general)}
                yield Form(name, smallest, info.image_size, macs)


def measured_macs(name: str) -> set[int]:
    """Return the multiply-adds of the committed runs of the comparison ``name``."""
    with (ROOT / "results" / name / "trials.csv").open(newline="") as file:
        return {int(row["macs"]) for row in csv.DictReader(file)}


def graph_of(path: Path) -> Hashable:
    """Return what decides about the latency of an ONNX file: operators, their settings and shapes, not values."""
    graph = onnx.load(path).graph
    nodes = [(node.op_type, *_settings(node)) for node in graph.node]
    return tuple(nodes), tuple(tuple(weight.dims) for weight in graph.initializer)


def _settings(node: onnx.NodeProto) -> list[bytes]:
    kinds = (onnx.AttributeProto.INT, onnx.AttributeProto.INTS, onnx.AttributeProto.STRING)
    return [setting.SerializeToString() for setting in node.attribute if setting.type in kinds]


@click.command()
@click.argument("name")
@click.option("--classes", default=10, show_default=True, help="Of its data.")
@click.option("--iterations", default=400, show_default=True)
@click.option("--network", "names", multiple=True, help="These alone, as 'metric' or 'fm_kt, K = 1'.  [default: all]")
@output_option
def main(*, name: str, classes: int, iterations: int, names: tuple[str, ...], output: Path | None) -> None:
    """Time all networks of the comparison NAME in turns by ONNX Runtime, one image and one thread."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    found = {form.name: form for form in forms(load_comparison(ROOT / f"comparisons/{name}.yaml"), classes=classes)}
    unknown = measured_macs(name).difference(*(form.macs for form in found.values()))
    if unknown:
        raise click.ClickException(f"these are not the networks that were compared: multiply-adds {unknown}")
    if missing := sorted(set(names) - found.keys()):
        raise click.BadParameter(f"got {', '.join(missing)}; there are {', '.join(found)}", param_hint="--network")
    size = found["teacher"].image_size
    graphs: dict[Hashable, list[str]] = {}
    with tempfile.TemporaryDirectory() as folder:
        runtimes: dict[Hashable, OnnxRuntime] = {}
        for number, chosen in enumerate(names or found):
            path = Path(folder, f"{number}.onnx")
            runtime = exported(found[chosen].network, path, size=size)
            graph = graph_of(path)
            graphs.setdefault(graph, []).append(chosen)
            runtimes.setdefault(graph, runtime)
        seconds = time_in_turns([*runtimes.values()], random_pixels(1, size), warmup=WARMUP, iterations=iterations)
    networks: dict[str, dict[str, Any]] = {}
    for graph, spent in zip(runtimes, seconds, strict=True):
        points = {f"{point}_ms": value for point, value in percentiles(spent).items()}
        for form in graphs[graph]:
            macs = count_macs(found[form].network, size, CPU)
            networks[form] = {"macs": macs, **points}
            click.echo(f"{form:28} {macs:11,} multiply-adds  {networks[form]['p50_ms']:.4f} ms")
    protocol = describe_protocol(warmup=WARMUP, iterations=iterations)
    write_result(output, protocol=f"ONNX Runtime fp32, one thread, in turns; {protocol}", networks=networks)


if __name__ == "__main__":
    main()
