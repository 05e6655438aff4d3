"""How long the students of the comparison on a subset of CIFAR-10, and its teacher, take for an image.

    python -m benchmarks.compared_latency --output benchmarks/results/cifar10-subset/latency.json   # two minutes

A latency is that of a graph, whatever its weights: they are random. Students are timed in the form that deploys today,
which is smaller than that of the runs: the script stops unless the general forms have the multiply-adds of those.
"""

import csv
import tempfile
from pathlib import Path
from typing import Any

import click
import torch
from torch import nn

from benchmarks.measuring import output_option, write_result
from benchmarks.networks import MEAN, SIZE, STD, exported, flow_student, plain_network
from models.deploy import with_each_num_steps
from models.students import build_layered_classifier
from pipeline.networks.complexity import count_macs
from pipeline.runtimes.latency import describe_protocol, percentiles, random_pixels, time_in_turns

RUNS = Path(__file__).parent / "results/cifar10-subset/trials.csv"
STUDENT, TEACHER, CLASSES = "resnet8_x0_5", "resnet20", 10
STEPS = (1, 2, 4)
"""Numbers of steps that calibration chose."""
WARMUP = 20
CPU = torch.device("cpu")


def networks() -> tuple[dict[str, nn.Module], set[int]]:
    """Return each network as it deploys, by name, and the multiply-adds of all students in their general form."""
    torch.manual_seed(0)
    layered = build_layered_classifier(
        backbone=STUDENT, num_classes=CLASSES, mean=MEAN, std=STD, layers="conv", width=None
    )
    eager = {
        "teacher": plain_network(TEACHER, classes=CLASSES),
        "plain": plain_network(STUDENT, classes=CLASSES),
        "layers": layered,
        "flow": flow_student(STUDENT, classes=CLASSES),
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
    with RUNS.open(newline="") as file:
        return {int(row["macs"]) for row in csv.DictReader(file)}


@click.command()
@click.option("--iterations", default=400, show_default=True)
@click.option("--network", "names", multiple=True, help="These alone, as 'plain' or 'flow, K = 1'.  [default: all]")
@output_option
def main(*, iterations: int, names: tuple[str, ...], output: Path | None) -> None:
    """Time all of them in turns by ONNX Runtime, one image and one thread."""
    torch.set_num_threads(1)
    forms, general = networks()
    if general != measured_macs():
        raise click.ClickException(f"these are not the networks that were compared: multiply-adds {general}")
    if unknown := set(names) - forms.keys():
        raise click.BadParameter(f"got {', '.join(unknown)}; there are {', '.join(forms)}", param_hint="--network")
    chosen = {name: forms[name] for name in names or forms}
    with tempfile.TemporaryDirectory() as folder:
        runtimes = [exported(form, Path(folder, f"{number}.onnx")) for number, form in enumerate(chosen.values())]
        seconds = time_in_turns(runtimes, random_pixels(1, SIZE), warmup=WARMUP, iterations=iterations)
    found: dict[str, dict[str, Any]] = {}
    for (name, form), spent in zip(chosen.items(), seconds, strict=True):
        row = found[name] = {"macs": count_macs(form, SIZE, CPU)}
        row |= {f"{point}_ms": value for point, value in percentiles(spent).items()}
        click.echo(f"{name:12} {row['macs']:11,} multiply-adds  {row['p50_ms']:.4f} ms")
    protocol = describe_protocol(warmup=WARMUP, iterations=iterations)
    write_result(output, protocol=f"ONNX Runtime fp32, one thread, in turns; {protocol}", networks=found)


if __name__ == "__main__":
    main()
