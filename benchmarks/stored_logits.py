"""Training steps a second with the teacher at each step and with its logits from disk, in one run.

    python -m benchmarks.stored_logits                  # resnet8 from wrn_40_2 and resnet56, batch 64, 32 x 32
    python -m benchmarks.stored_logits --output benchmarks/results/stored-logits/results.json

Both take whole steps of classical distillation on the same images: batch, augmentation, student, loss, update. Blocks
of steps of both alternate, and the ratio is that of neighbouring blocks. The logits are stored by an epoch before the
first block, which is what each view costs once.
"""

import functools
import json
import tempfile
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

from benchmarks.measuring import output_option, ratios, spread, take_turns, write_result
from benchmarks.networks import CLASSES, plain_network
from benchmarks.training_step import IMAGES, Steps, advance, our_steps
from pipeline.distillation.criteria import KdSettings
from pipeline.distillation.criterion import Criterion
from pipeline.distillation.frozen_teacher import FrozenTeacher
from pipeline.distillation.logit_objectives import LogitDistillation
from pipeline.distillation.stored_teacher import StoredTeacher
from pipeline.distillation.teacher_loss import TeacherLoss
from pipeline.tasks.classification.training import CrossEntropy

CPU = torch.device("cpu")


def steps_of(frozen: FrozenTeacher, config: dict[str, Any]) -> Steps:
    """Return the steps of a student that learns from ``frozen``."""
    torch.manual_seed(1)
    student = plain_network(config["student"])
    supervision = CrossEntropy(tuple(map(str, range(CLASSES))), label_smoothing=0.0)
    loss = TeacherLoss(frozen, Criterion("kd", KdSettings()))
    objective = LogitDistillation(student, loss, weight=1.0, supervision=supervision)
    return our_steps(
        objective, batch=config["batch"], images=config["images"], device=CPU, precision=config["precision"]
    )


def measure(teacher: str, config: dict[str, Any], folder: Path) -> dict[str, Any]:
    torch.manual_seed(0)
    network = plain_network(teacher)
    stored = StoredTeacher(network, 1)
    stored.keep_in(folder)
    kinds = {"computed": steps_of(FrozenTeacher(network), config), "stored": steps_of(stored, config)}
    epoch = config["images"] // config["batch"]
    storing = take_turns({"stored": functools.partial(next, kinds["stored"])}, turns=epoch, warmup=0)
    calls = {kind: functools.partial(advance, steps, config["steps"]) for kind, steps in kinds.items()}
    seconds = take_turns(calls, turns=config["blocks"])
    medians = {kind: round(1000 * float(np.median(spent)) / config["steps"], 2) for kind, spent in seconds.items()}
    return {
        **{f"{kind}_ms": value for kind, value in medians.items()},
        "storing_ms": round(1000 * float(storing["stored"].mean()), 2),
        **spread("ratio", ratios(seconds["computed"], seconds["stored"])),
    }


@click.command()
@click.option("--teacher", multiple=True, default=("wrn_40_2", "resnet56"), show_default=True)
@click.option("--student", default="resnet8", show_default=True)
@click.option("--batch", default=64, show_default=True)
@click.option("--blocks", default=7, show_default=True, help="Blocks of steps of each kind, which alternate.")
@click.option("--steps", default=8, show_default=True, help="Steps in a block.")
@click.option("--images", default=IMAGES, show_default=True, help="Of an epoch.")
@click.option("--threads", default=1, show_default=True)
@click.option("--precision", default="fp32", show_default=True)
@output_option
def main(teacher: tuple[str, ...], output: Path | None, **config: Any) -> None:
    """Print a table."""
    torch.set_num_threads(config["threads"])
    results = {}
    click.echo(f"{json.dumps(config)}, PyTorch {torch.__version__}")
    click.echo("teacher      computed ms  stored ms  storing ms  ratio (range)")
    for name in teacher:
        with tempfile.TemporaryDirectory() as folder:
            row = results[name] = measure(name, config, Path(folder))
        low, high = row["ratio_range"]
        click.echo(
            f"{name:12} {row['computed_ms']:11}  {row['stored_ms']:9}  {row['storing_ms']:10}"
            f"  {row['ratio']:.2f} ({low:.2f} to {high:.2f})"
        )
    write_result(output, config=config, results=results)


if __name__ == "__main__":
    main()
