"""Training steps a second with the teacher at each step and with its logits from disk, in one run.

    python benchmarks/stored_logits.py                  # resnet8 from wrn_40_2 and resnet56, batch 64, 32 x 32
    python benchmarks/stored_logits.py --output results.json

Both take whole steps of classical distillation on the same images: batch, augmentation, student, loss, update. Blocks
of steps of both alternate, and the ratio is that of neighbouring blocks. The logits are stored by an epoch before the
first block, which is what each view costs once.
"""

import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click
import torch

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.training_step import CLASSES, IMAGES, MEAN, STD, Steps, our_steps
from models.factory import build_classifier
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
    student = build_classifier(backbone=config["student"], num_classes=CLASSES, mean=MEAN, std=STD)
    supervision = CrossEntropy(tuple(map(str, range(CLASSES))), label_smoothing=0.0)
    loss = TeacherLoss(frozen, Criterion("kd", KdSettings()))
    objective = LogitDistillation(student, loss, weight=1.0, supervision=supervision)
    return our_steps(objective, batch=config["batch"], device=CPU, precision=config["precision"])


def seconds_of(steps: Steps, count: int) -> float:
    start = time.perf_counter()
    for _ in range(count):
        next(steps)
    return (time.perf_counter() - start) / count


def measure(teacher: str, config: dict[str, Any], folder: Path) -> dict[str, Any]:
    torch.manual_seed(0)
    network = build_classifier(backbone=teacher, num_classes=CLASSES, mean=MEAN, std=STD)
    stored = StoredTeacher(network, 1)
    stored.keep_in(folder)
    kinds = {"computed": steps_of(FrozenTeacher(network), config), "stored": steps_of(stored, config)}
    seconds_of(kinds["computed"], config["steps"])
    storing = seconds_of(kinds["stored"], IMAGES // config["batch"])
    found: dict[str, list[float]] = {kind: [] for kind in kinds}
    for _ in range(config["blocks"]):
        for kind, steps in kinds.items():
            found[kind].append(seconds_of(steps, config["steps"]))
    ratios = sorted(one / other for one, other in zip(found["computed"], found["stored"], strict=True))
    return {
        **{f"{kind}_ms": round(1000 * statistics.median(values), 2) for kind, values in found.items()},
        "storing_ms": round(1000 * storing, 2),
        "ratio": round(statistics.median(ratios), 2),
        "ratio_range": [round(ratios[0], 2), round(ratios[-1], 2)],
    }


@click.command()
@click.option("--teacher", multiple=True, default=("wrn_40_2", "resnet56"), show_default=True)
@click.option("--student", default="resnet8", show_default=True)
@click.option("--batch", default=64, show_default=True)
@click.option("--blocks", default=7, show_default=True, help="Blocks of steps of each kind, which alternate.")
@click.option("--steps", default=8, show_default=True, help="Steps in a block.")
@click.option("--threads", default=1, show_default=True)
@click.option("--precision", default="fp32", show_default=True)
@click.option("--output", type=click.Path(path_type=Path), help="JSON file to write besides.")
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
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(json.dumps({"config": config, "torch": torch.__version__, "results": results}, indent=2))


if __name__ == "__main__":
    main()
