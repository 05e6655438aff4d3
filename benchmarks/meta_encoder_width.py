"""Meta-encoders in a width of their own against the authors' full width: accuracy, multiply-adds, parameters, latency.

    python benchmarks/meta_encoder_width.py train --images cifar10-jpeg    # an hour of one core; goes on where it ended
    python benchmarks/meta_encoder_width.py latency                        # two quiet minutes
    python benchmarks/meta_encoder_width.py table                          # writes README.md from both

All arms of a seed see the same images in the same order, with the same crops and flips, and the same stored logits of
one teacher. The students train with the losses of the methods metric, metric_meta and fm_kt. Images are a folder with
train/<class>/ and test/<class>/.
"""

import json
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).parent.parent))

from models.classifier import Classifier
from models.deploy import with_num_steps
from models.factory import build_classifier, count_parameters
from models.losses import kd_loss
from models.students import FlowStudent, build_flow_student, build_layered_classifier
from pipeline.core.signature import image_input
from pipeline.distillation.flow_width import choose_widths
from pipeline.export.onnx.exporter import export_image_network
from pipeline.networks.complexity import count_macs
from pipeline.networks.spec import NetworkSpec
from pipeline.package.benchmark import measure_latency
from pipeline.runtimes.base import Runtime
from pipeline.runtimes.latency import describe_protocol
from pipeline.runtimes.onnx import OnnxRuntime

RESULTS = Path(__file__).parent / "results/meta-encoder-width"
STUDENTS = {"resnet8_x0_5": 18, "resnet8x4": 6}
"""From a narrow and a wide student (32 and 256 channels) to the epochs that each trains."""
TEACHER, TEACHER_EPOCHS = "resnet20", 16
SIZE, TEACHER_SIZE = 16, 32
CLASSES, PER_CLASS = 10, 1000
BATCH, RATE, TEMPERATURE, STEPS = 128, 0.1, 4.0, 4
SHOWN_STEPS = (1, 2, 4, 8)
STATISTICS = {"mean": [0.47, 0.47, 0.47], "std": [0.25, 0.25, 0.25]}
FLOW = {"schedule": "rectified", "time_scale": 1.0}
CPU = torch.device("cpu")


class Arm(NamedTuple):
    """What is trained."""

    method: str
    meta_encoder: str = ""
    width: str = "full"
    """``full``, ``auto``, or ``half`` of auto."""

    def __str__(self) -> str:
        return " ".join(filter(None, [self.method, self.meta_encoder, self.width if self.meta_encoder else ""]))


ARMS = [
    Arm("metric"),
    Arm("fm_kt", "conv", "full"),
    Arm("fm_kt", "conv", "auto"),
    Arm("fm_kt", "conv_mobile", "full"),
    Arm("metric_meta", "conv", "auto"),
    Arm("fm_kt", "conv", "half"),
]


def width_of(arm: Arm, backbone: str) -> int | None:
    """Return the channels of the meta-encoder; None: those of the features."""
    if arm.width == "full":
        return None
    arguments = {"backbone": backbone, "num_classes": CLASSES, "meta_encoder": arm.meta_encoder, **FLOW, **STATISTICS}
    (auto,) = choose_widths(NetworkSpec("flow_student", arguments), (SIZE, SIZE), "auto")
    return auto if arm.width == "auto" or auto is None else auto // 2


def build(arm: Arm, backbone: str) -> nn.Module:
    """Return the student with random weights."""
    common: dict[str, Any] = {"backbone": backbone, "num_classes": CLASSES, **STATISTICS}
    width = width_of(arm, backbone)
    if arm.method == "metric":
        return build_classifier(**common)
    if arm.method == "metric_meta":
        return build_layered_classifier(layers=arm.meta_encoder, width=width, **common)
    return build_flow_student(meta_encoder=arm.meta_encoder, width=width, **FLOW, **common)


class Images(NamedTuple):
    """A split at the students' and the teacher's size."""

    small: Tensor
    """(N, 3, 16, 16) in [0, 1]."""
    large: Tensor
    """(N, 3, 32, 32) in [0, 1]."""
    labels: Tensor


def read_images(folder: Path) -> Images:
    """Return the first images of each class of ``folder`` in an order drawn once."""
    order = np.random.default_rng(0)
    pixels, labels = [], []
    for label, place in enumerate(sorted(path for path in folder.iterdir() if path.is_dir())):
        files = sorted(place.iterdir())
        for number in order.permutation(len(files))[:PER_CLASS]:
            pixels.append(np.asarray(Image.open(files[number]).convert("RGB")))
            labels.append(label)
    large = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).float() / 255
    return Images(functional.avg_pool2d(large, TEACHER_SIZE // SIZE), large, torch.tensor(labels))


def augmented(images: Tensor, generator: torch.Generator) -> Tensor:
    """Return shifted and mirrored ``images``: crops with padding of an eighth of their size, flips."""
    count, _, height, width = images.shape
    padding = height // 8
    padded = functional.pad(images, (padding,) * 4)
    rows, columns = torch.randint(0, 2 * padding + 1, (2, count), generator=generator)
    flipped = torch.rand(count, generator=generator) < 0.5  # noqa: PLR2004  (half of them)
    down = rows[:, None] + torch.arange(height)  # (N, H)
    across = columns[:, None] + torch.arange(width)
    across = torch.where(flipped[:, None], across.flip(1), across)  # (N, W)
    return padded[torch.arange(count)[:, None, None], :, down[:, :, None], across[:, None, :]].permute(0, 3, 1, 2)


def fit(network: nn.Module, images: Tensor, loss: Callable[[Tensor, Tensor], Tensor], epochs: int, seed: int) -> None:
    """Train by SGD; ``loss`` takes images and their positions."""
    generator, count = torch.Generator().manual_seed(seed), len(images)
    steps = epochs * (count // BATCH)
    optimizer = torch.optim.SGD(network.parameters(), lr=RATE, momentum=0.9, weight_decay=5e-4, nesterov=True)
    warmup = count // BATCH
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1.0, (step + 1) / warmup) * 0.5 * (1 + math.cos(math.pi * step / steps))
    )
    for _ in range(epochs):
        network.train()
        order = torch.randperm(count, generator=generator)
        for start in range(0, count - BATCH + 1, BATCH):
            chosen = order[start : start + BATCH]
            batch = augmented(images[chosen], generator).contiguous(memory_format=torch.channels_last)
            optimizer.zero_grad()
            loss(batch, chosen).backward()
            optimizer.step()
            schedule.step()
    network.eval()


@torch.no_grad()
def logits_of(network: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """Return logits (N, classes)."""
    with torch.autocast("cpu", torch.bfloat16):
        return torch.cat([network(part) for part in images.split(500)]).float()


def teacher_logits(folder: Path, train: Images, test: Images) -> Tensor:
    """Return the teacher's logits of the training images, mean of both mirror images; it is trained once."""
    path = folder / "teacher.pt"
    if not path.exists():
        torch.manual_seed(0)
        network = build_classifier(backbone=TEACHER, num_classes=CLASSES, **STATISTICS)
        network = network.to(memory_format=torch.channels_last)

        def loss(batch: Tensor, chosen: Tensor) -> Tensor:
            with torch.autocast("cpu", torch.bfloat16):
                logits = network(batch)
            return functional.cross_entropy(logits.float(), train.labels[chosen])

        fit(network, train.large, loss, TEACHER_EPOCHS, seed=0)
        both = [logits_of(network, train.large), logits_of(network, train.large.flip(3))]
        score = accuracy(logits_of(network, test.large), test.labels)
        torch.save({"logits": sum(both) / 2, "accuracy": score}, path)
    logits: Tensor = torch.load(path)["logits"]
    return logits


def accuracy(logits: Tensor, labels: Tensor) -> float:
    """Return the share of right answers in percent."""
    return round(100 * (logits.argmax(dim=1) == labels).float().mean().item(), 2)


def train_student(arm: Arm, backbone: str, seed: int, train: Images, test: Images, teacher: Tensor) -> dict[int, float]:
    """Return the accuracy on ``test`` by number of steps; 1 for a student without any."""
    torch.manual_seed(seed)
    student = build(arm, backbone).to(memory_format=torch.channels_last)

    def loss(batch: Tensor, chosen: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            found = student.step_logits(batch, STEPS) if isinstance(student, FlowStudent) else student(batch)[None]
        flat = found.float().flatten(0, 1)  # (steps * B, classes)
        labels = train.labels[chosen].repeat(len(found))
        return functional.cross_entropy(flat, labels) + kd_loss(found.float(), teacher[chosen], TEMPERATURE)

    fit(student, train.small, loss, STUDENTS[backbone], seed=1000 + seed)
    if not isinstance(student, FlowStudent):
        return {1: accuracy(logits_of(student, test.small), test.labels)}
    return {
        steps: accuracy(logits_of(lambda images, steps=steps: student(images, steps), test.small), test.labels)
        for steps in SHOWN_STEPS
    }


def runs_of(folder: Path) -> list[dict[str, Any]]:
    """Return what has been trained."""
    path = folder / "runs.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@click.group()
def main() -> None:
    """Train the arms, time them, write the table."""
    torch.set_num_threads(1)


@main.command()
@click.option("--images", required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--seeds", default="0,1,2", show_default=True)
@click.option("--students", default=",".join(STUDENTS), show_default=True)
@click.option("--output", default=RESULTS, type=click.Path(path_type=Path))
@click.option("--work", default=Path(tempfile.gettempdir(), "meta-encoder-width"), type=click.Path(path_type=Path))
def train(*, images: Path, seeds: str, students: str, output: Path, work: Path) -> None:
    """Train each arm with each seed, unless runs.jsonl has it; the teacher lies in --work."""
    for folder in (output, work):
        folder.mkdir(parents=True, exist_ok=True)
    shown, held_out = read_images(images / "train"), read_images(images / "test")
    teacher = teacher_logits(work, shown, held_out)
    for backbone in students.split(","):
        for seed in map(int, seeds.split(",")):
            for arm in ARMS:
                known = {(run["student"], run["seed"], run["arm"]) for run in runs_of(output)}
                if (backbone, seed, str(arm)) in known:
                    continue
                started = time.perf_counter()
                scores = train_student(arm, backbone, seed, shown, held_out, teacher)
                seconds = round(time.perf_counter() - started)
                run = {"student": backbone, "seed": seed, "arm": str(arm), "accuracy": scores, "seconds": seconds}
                with (output / "runs.jsonl").open("a") as file:
                    file.write(json.dumps(run) + "\n")
                click.echo(json.dumps(run))


if __name__ == "__main__":
    main()
