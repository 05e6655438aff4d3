"""Images per second of this pipeline's training step against a plain eager loop of the same method, in one run.

    python -m benchmarks.training_step                 # wrn_40_2 to wrn_16_2, batch 64, N = 1, 4, 8
    python -m benchmarks.training_step --output benchmarks/results/training-step/cpu-bf16.json

The plain loop is FM-KT as one would write it down: a DataLoader with per-image transforms, float32, the chain step by
step with its time embedding and losses, figures read after every step. Both train the same networks on the same number
of classes and images, data included; blocks of steps of both alternate, and the ratio is that of neighbouring blocks.
The floor is the bare arithmetic: forward of the teacher and forward and backward of the student on one fixed batch, in
the precision and memory format of the pipeline's step. Peak memory is that of a process of its own for each.
"""

import functools
import json
import multiprocessing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from attacks.memory import largest_mib
from benchmarks.measuring import output_option, ratios, spread, take_turns, write_result
from benchmarks.networks import CLASSES, flow_student, plain_network
from models.losses import dist_loss
from models.meta_encoder import MetaEncoder
from models.step_sampler import StepSampler
from models.students import FlowStudent
from pipeline.data.augmentation import Augmentation
from pipeline.data.dataset import Split
from pipeline.data.packed_batches import PackedBatches
from pipeline.distillation.criteria import DistSettings
from pipeline.distillation.criterion import Criterion
from pipeline.distillation.frozen_teacher import FrozenTeacher
from pipeline.distillation.logit_objectives import FlowMatching
from pipeline.distillation.teacher_loss import TeacherLoss
from pipeline.tasks.classification.targets import ClassTargets
from pipeline.tasks.classification.training import CrossEntropy
from pipeline.training.compilation import compiled_networks, wants_compiling
from pipeline.training.epoch_metrics import EpochMetrics
from pipeline.training.execution import choose_precision
from pipeline.training.objective import Objective
from pipeline.training.optim import build_optimizer
from pipeline.training.settings import LearningRate, Optimizer
from pipeline.training.step import TrainingStep

IMAGES = 4096
OPTIMIZER = Optimizer(learning_rate=0.05)
SCHEDULE = LearningRate(warmup_epochs=0)
DIST = DistSettings()

Steps = Iterator[None]
"""Takes one training step each time it is advanced."""


def make_networks(teacher: str, student: str) -> tuple[nn.Module, FlowStudent]:
    torch.manual_seed(0)
    return plain_network(teacher), flow_student(student)


def make_images(count: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
    return images, generator.integers(0, CLASSES, count)


class PlainDataset(Dataset[tuple[Tensor, int]]):
    """Per-image transforms, as in torchvision's examples."""

    def __init__(self, count: int) -> None:
        self.images, self.labels = make_images(count)
        self.transform = transforms.Compose(
            [transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip(), transforms.ToTensor()]
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, position: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.images[position])), int(self.labels[position])


def plain_steps(
    teacher: nn.Module, student: FlowStudent, *, num_steps: int, batch: int, images: int, device: torch.device
) -> Steps:
    """Take steps of FM-KT written down plainly."""
    teacher, student = teacher.to(device).eval(), student.to(device).train()
    sgd = torch.optim.SGD(student.parameters(), lr=0.05, momentum=0.9, nesterov=True, weight_decay=5e-4)
    loader = DataLoader(
        PlainDataset(images), batch, shuffle=True, drop_last=True, num_workers=2, pin_memory=device.type == "cuda",
        persistent_workers=True,
    )  # fmt: skip
    encoder, head = student.flow.velocity, student.flow.transform
    assert isinstance(encoder, MetaEncoder)
    while True:
        for drawn, classes in loader:
            pixels, labels = drawn.to(device), classes.to(device)
            with torch.no_grad():
                target = teacher(pixels)
            x = student.features(pixels)
            z, cost = x, torch.zeros((), device=device)
            for i in range(num_steps):
                t = torch.full((len(pixels),), 1 - i / num_steps, device=device)
                velocity = encoder.body(z + encoder.time_embedding(t)[:, :, None, None])
                z = z - velocity / num_steps
                logits = head(x - velocity)
                cost = cost + functional.cross_entropy(logits, labels) + dist_loss(logits, target, **DIST.model_dump())
            cost = cost / num_steps
            sgd.zero_grad()
            cost.backward()
            sgd.step()
            float(cost.detach())  # as a loop that prints its loss does
            yield


def our_steps(objective: Objective, *, batch: int, images: int, device: torch.device, precision: str) -> Steps:
    """Take the pipeline's steps."""
    pixels, labels = make_images(images)
    split = Split(torch.from_numpy(pixels).permute(0, 3, 1, 2), ClassTargets(torch.from_numpy(labels)))
    augmentation = Augmentation(crop_padding=4, horizontal_flip=True, color_jitter=0.0)
    batches = PackedBatches(split, batch_size=batch, device=device, augmentation=augmentation, mix=None)
    network = objective.network.to(device).to(memory_format=torch.channels_last)
    rule = build_optimizer(network, OPTIMIZER, SCHEDULE, steps_per_epoch=len(batches), epochs=1000)
    step = TrainingStep(objective, *rule, precision=precision, clip_norm=None, average=None, device=device)
    network.train()
    epoch = 0
    while True:
        metrics = EpochMetrics(len(batches), key="training")
        for drawn in batches.epoch(epoch):
            loss = step(drawn)
            metrics.add(loss, objective.supervision.batch_scores(loss.predicted, drawn), step.learning_rate)
            if metrics.count % 32 == 0:
                metrics.latest()
            yield
        epoch += 1


def bare_steps(teacher: nn.Module, student: FlowStudent, num_steps: int, images: Tensor, precision: str) -> Steps:
    """Compute forward of the teacher, forward and backward of the student, and nothing else."""
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision, torch.float32)
    while True:
        with torch.autocast(images.device.type, dtype, enabled=precision != "fp32"):
            with torch.inference_mode():
                teacher(images)
            total = student(images, num_steps).float().square().mean()
        for parameter in student.parameters():
            parameter.grad = None
        total.backward()
        yield


def build(kind: str, config: dict[str, Any], num_steps: int) -> Steps:
    """Return the steps of ``kind``: plain, ours or bare."""
    device, batch, images = torch.device(config["device"]), config["batch"], config["images"]
    teacher, student = make_networks(config["teacher"], config["student"])
    if kind == "plain":
        return plain_steps(teacher, student, num_steps=num_steps, batch=batch, images=images, device=device)
    frozen = FrozenTeacher(teacher.to(device))
    loss = TeacherLoss(frozen, Criterion("dist", DIST))
    steps, supervision = StepSampler((num_steps,)), CrossEntropy(tuple(map(str, range(CLASSES))), label_smoothing=0.0)
    objective = FlowMatching(student, loss, steps=steps, weight=1.0, supervision=supervision)
    if wants_compiling(config["compile"], device):
        compiled_networks(objective.network, frozen).__enter__()  # for as long as the process lives
    if kind == "ours":
        return our_steps(objective, batch=batch, images=images, device=device, precision=config["precision"])
    student.to(device).to(memory_format=torch.channels_last).train()
    pixels = torch.rand(batch, 3, 32, 32, device=device).to(memory_format=torch.channels_last)
    return bare_steps(frozen.network, student, num_steps, pixels, config["precision"])


def advance(steps: Steps, count: int, wait: Callable[[], None] | None = None) -> None:
    """Take ``count`` steps, and wait until the device has done them."""
    for _ in range(count):
        next(steps)
    if wait is not None:
        wait()


def measure(config: dict[str, Any], num_steps: int) -> dict[str, Any]:
    """Return images per second of each kind, and ratios of neighbouring blocks."""
    wait = torch.cuda.synchronize if config["device"] == "cuda" else None
    kinds = {kind: build(kind, config, num_steps) for kind in ("plain", "ours", "bare")}
    for steps in kinds.values():
        advance(steps, config["warmup"], wait)
    blocks = {kind: functools.partial(advance, steps, config["steps"], wait) for kind, steps in kinds.items()}
    seconds = take_turns(blocks, turns=config["blocks"], warmup=0)
    size = config["batch"] * config["steps"]
    result: dict[str, Any] = {kind: round(size / float(np.median(spent)), 1) for kind, spent in seconds.items()}
    result |= spread("speedup", ratios(seconds["plain"], seconds["ours"]))
    return result | spread("floor", ratios(seconds["bare"], seconds["ours"]))


def peak_memory(kind: str, config: dict[str, Any], num_steps: int, answer: Any) -> None:
    """Send the largest memory in MiB that a process needs for a few steps."""
    torch.set_num_threads(config["threads"])
    steps = build(kind, config, num_steps)
    for _ in range(config["warmup"]):
        next(steps)
    answer.send(round(torch.cuda.max_memory_allocated() / 2**20 if config["device"] == "cuda" else largest_mib()))


def measured_memory(kind: str, config: dict[str, Any], num_steps: int) -> int:
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=peak_memory, args=(kind, config, num_steps, sender))
    process.start()
    peak: int = receiver.recv()
    process.join()
    return peak


@click.command()
@click.option("--teacher", default="wrn_40_2", show_default=True)
@click.option("--student", default="wrn_16_2", show_default=True)
@click.option("--num-steps", multiple=True, type=int, default=(1, 4, 8), show_default=True)
@click.option("--batch", default=64, show_default=True)
@click.option("--blocks", default=5, show_default=True, help="Blocks of steps of each kind, which alternate.")
@click.option("--steps", default=8, show_default=True, help="Steps in a block.")
@click.option("--warmup", default=4, show_default=True, help="Steps before the first block.")
@click.option("--images", default=IMAGES, show_default=True, help="Of an epoch.")
@click.option("--threads", default=2, show_default=True, help="CPU threads.")
@click.option("--precision", default="auto", show_default=True)
@click.option("--compile", "compiling", default="auto", show_default=True, help="auto, always, never.")
@click.option("--memory/--no-memory", default=True, show_default=True, help="Peak memory, by a process for each kind.")
@output_option
def main(num_steps: tuple[int, ...], compiling: str, output: Path | None, *, memory: bool, **config: Any) -> None:
    """Print a table."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    config |= {"device": device, "compile": compiling}
    student = flow_student(config["student"])
    config["precision"] = choose_precision(config["precision"], torch.device(device), student)
    torch.set_num_threads(config["threads"])
    results: dict[str, dict[str, Any]] = {}
    click.echo(f"{config['teacher']} to {config['student']}, {json.dumps(config)}, PyTorch {torch.__version__}")
    click.echo(" N  plain img/s  ours img/s  speedup (range)     floor/ours  peak MiB plain, ours")
    for n in num_steps:
        row = results[str(n)] = measure(config, n)
        peaks = {f"{kind}_mib": measured_memory(kind, config, n) for kind in ("plain", "ours")} if memory else {}
        row |= peaks
        low, high = row["speedup_range"]
        click.echo(
            f"{n:2}  {row['plain']:11}  {row['ours']:10}  {row['speedup']:.2f} ({low:.2f} to {high:.2f})"
            f"  {row['floor']:10.1%}  {', '.join(map(str, peaks.values())) or 'not measured'}"
        )
    write_result(output, config=config, results=results)


if __name__ == "__main__":
    main()
