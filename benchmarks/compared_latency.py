"""How long the students of the comparison on a subset of CIFAR-10, and its teacher, take for an image.

    python benchmarks/compared_latency.py    # two quiet minutes; writes results/cifar10-subset/latency.json

A latency is that of a graph, whatever its weights: they are random. Students are timed in the form that deploys today,
which is smaller than that of the runs: the script stops unless the general forms have the multiply-adds of those.
"""

import csv
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import click
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parent.parent))

from models.deploy import with_each_num_steps
from models.factory import build_classifier
from models.students import build_flow_student, build_layered_classifier
from pipeline.core.signature import image_input
from pipeline.export.onnx.exporter import export_image_network
from pipeline.networks.complexity import count_macs
from pipeline.runtimes.base import Runtime
from pipeline.runtimes.latency import describe_protocol, percentiles, random_pixels, time_in_turns
from pipeline.runtimes.onnx import OnnxRuntime

RESULTS = Path(__file__).parent / "results/cifar10-subset"
SIZE = (32, 32)
COMMON: dict[str, Any] = {"num_classes": 10, "mean": [0.47, 0.47, 0.47], "std": [0.25, 0.25, 0.25]}
STUDENT, TEACHER = {"backbone": "resnet8_x0_5", **COMMON}, {"backbone": "resnet20", **COMMON}
STEPS = (1, 2, 4)
"""Numbers of steps that calibration chose."""
WARMUP = 20
CPU = torch.device("cpu")


def networks() -> tuple[dict[str, nn.Module], set[int]]:
    """Return each network as it deploys, by name, and the multiply-adds of all students in their general form."""
    torch.manual_seed(0)
    flow = build_flow_student(meta_encoder="conv", width=None, schedule="rectified", time_scale=1.0, **STUDENT)
    eager = {
        "teacher": build_classifier(**TEACHER),
        "plain": build_classifier(**STUDENT),
        "layers": build_layered_classifier(layers="conv", width=None, **STUDENT),
        "flow": flow,
    }
    forms, general = {}, set()
    for name, network in eager.items():
        for form in with_each_num_steps(network.eval(), STEPS):
            forms[f"{name}, K = {form.num_steps}" if form.num_steps else name] = form.smallest_form(SIZE)
            if name != "teacher":
                general.add(count_macs(form.general_form(), SIZE, CPU))
    return forms, general


def measured_macs() -> set[int]:
    """Return the multiply-adds of the committed runs."""
    with (RESULTS / "trials.csv").open(newline="") as file:
        return {int(row["macs"]) for row in csv.DictReader(file)}


@click.command()
@click.option("--iterations", default=400, show_default=True)
@click.option("--output", default=RESULTS / "latency.json", type=click.Path(path_type=Path))
def main(*, iterations: int, output: Path) -> None:
    """Time all of them in turns by ONNX Runtime, one image and one thread."""
    torch.set_num_threads(1)
    runtimes: dict[str, Runtime] = {}
    macs: dict[str, int] = {}
    with tempfile.TemporaryDirectory() as folder:
        forms, general = networks()
        if general != measured_macs():
            raise click.ClickException(f"these are not the networks that were compared: multiply-adds {general}")
        for name, form in forms.items():
            macs[name] = count_macs(form, SIZE, CPU)
            path = Path(folder, f"{len(runtimes)}.onnx")
            export_image_network(form, path, image_input(SIZE, "float32"), ["logits"], opset=20, metadata={})
            runtimes[name] = OnnxRuntime(path)
        seconds = time_in_turns([*runtimes.values()], random_pixels(1, SIZE), warmup=WARMUP, iterations=iterations)
    protocol = describe_protocol(warmup=WARMUP, iterations=iterations)
    found = {
        "protocol": f"ONNX Runtime fp32, one thread, in turns; {protocol}",
        "networks": {
            name: {"macs": macs[name], "p50_ms": percentiles(spent)["p50"]}
            for name, spent in zip(runtimes, seconds, strict=True)
        },
    }
    output.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    click.echo(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
