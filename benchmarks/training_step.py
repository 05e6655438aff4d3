"""Images per second of this pipeline's training step against a plain eager loop of the same method, in one run.

    python benchmarks/training_step.py                 # wrn_40_2 to wrn_16_2, batch 64, N = 1, 4, 8
    python benchmarks/training_step.py --output results.json

The plain loop is FM-KT as one would write it down: a DataLoader with per-image transforms, float32, the chain step by
step with its time embedding and losses, figures read after every step. Both train the same networks on the same number
of classes and images, data included; blocks of steps of both alternate, and the ratio is that of neighbouring blocks.
The floor is the bare arithmetic: forward of the teacher and forward and backward of the student on one fixed batch, in
the precision and memory format of the pipeline's step. Peak memory is that of a process of its own for each.
"""

import json
import multiprocessing
import statistics
import sys
import time
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

sys.path.insert(0, str(Path(__file__).parent.parent))

from models.factory import build_classifier
from models.losses import dist_loss
from models.meta_encoder import MetaEncoder
from models.step_sampler import StepSampler
from models.students import FlowStudent, build_flow_student
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

CLASSES = 100
IMAGES = 4096
MEAN, STD = [0.507, 0.487, 0.441], [0.267, 0.256, 0.276]
OPTIMIZER = Optimizer(learning_rate=0.05)
SCHEDULE = LearningRate(warmup_epochs=0)
DIST = DistSettings()

Steps = Iterator[None]
"""Takes one training step each time it is advanced."""


def make_networks(teacher: str, student: str) -> tuple[nn.Module, FlowStudent]:
    torch.manual_seed(0)
    common: dict[str, Any] = {"num_classes": CLASSES, "mean": MEAN, "std": STD}
    flow = {"schedule": "rectified", "meta_encoder": "conv", "time_scale": 1.0}
    return build_classifier(backbone=teacher, **common), build_flow_student(backbone=student, **common, **flow)


def make_images() -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (IMAGES, 32, 32, 3), dtype=np.uint8)
    return images, generator.integers(0, CLASSES, IMAGES)


class PlainDataset(Dataset[tuple[Tensor, int]]):
    """Per-image transforms, as in torchvision's examples."""

    def __init__(self) -> None:
        self.images, self.labels = make_images()
        self.transform = transforms.Compose(
            [transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip(), transforms.ToTensor()]
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, position: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.images[position])), int(self.labels[position])


def plain_steps(teacher: nn.Module, student: FlowStudent, *, num_steps: int, batch: int, device: torch.device) -> Steps:
    """Take steps of FM-KT written down plainly."""
    teacher, student = teacher.to(device).eval(), student.to(device).train()
    sgd = torch.optim.SGD(student.parameters(), lr=0.05, momentum=0.9, nesterov=True, weight_decay=5e-4)
    loader = DataLoader(
        PlainDataset(), batch, shuffle=True, drop_last=True, num_workers=2, pin_memory=device.type == "cuda",
        persistent_workers=True,
    )  # fmt: skip
    encoder, head = student.flow.velocity, student.flow.transform
    assert isinstance(encoder, MetaEncoder)
    while True:
        for images, labels in loader:
            images, labels = images.to(device), labels.to(device)  # noqa: PLW2901
            with torch.no_grad():
                target = teacher(images)
            x = student.features(images)
            z, cost = x, torch.zeros((), device=device)
            for i in range(num_steps):
                t = torch.full((len(images),), 1 - i / num_steps, device=device)
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


def our_steps(objective: Objective, *, batch: int, device: torch.device, precision: str) -> Steps:
    """Take the pipeline's steps."""
    pixels, labels = make_images()
    split = Split(torch.from_numpy(pixels).permute(0, 3, 1, 2), ClassTargets(torch.from_numpy(labels)))
    augmentation = Augmentation(crop_padding=4, horizontal_flip=True, color_jitter=0.0)
    batches = PackedBatches(split, batch_size=batch, device=device, augmentation=augmentation, mix=None)
    network = objective.network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
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
    device, batch = torch.device(config["device"]), config["batch"]
    teacher, student = make_networks(config["teacher"], config["student"])
    if kind == "plain":
        return plain_steps(teacher, student, num_steps=num_steps, batch=batch, device=device)
    frozen = FrozenTeacher(teacher.to(device))  # type: ignore[arg-type]
    loss = TeacherLoss(frozen, Criterion("dist", DIST))
    steps, supervision = StepSampler((num_steps,)), CrossEntropy(tuple(map(str, range(CLASSES))), label_smoothing=0.0)
    objective = FlowMatching(student, loss, steps=steps, weight=1.0, supervision=supervision)
    if wants_compiling(config["compile"], device):
        compiled_networks(objective.network, frozen).__enter__()  # for as long as the process lives
    if kind == "ours":
        return our_steps(objective, batch=batch, device=device, precision=config["precision"])
    student.to(device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    images = torch.rand(batch, 3, 32, 32, device=device).to(memory_format=torch.channels_last)
    return bare_steps(frozen.network, student, num_steps, images, config["precision"])


def seconds(steps: Steps, count: int, wait: Callable[[], None]) -> float:
    wait()
    started = time.perf_counter()
    for _ in range(count):
        next(steps)
    wait()
    return time.perf_counter() - started


def measure(config: dict[str, Any], num_steps: int) -> dict[str, Any]:
    """Return images per second of each kind, and ratios of neighbouring blocks."""
    wait = torch.cuda.synchronize if config["device"] == "cuda" else lambda: None
    kinds = {kind: build(kind, config, num_steps) for kind in ("plain", "ours", "bare")}
    for steps in kinds.values():
        seconds(steps, config["warmup"], wait)
    times: dict[str, list[float]] = {kind: [] for kind in kinds}
    for _ in range(config["blocks"]):
        for kind, steps in kinds.items():
            times[kind].append(seconds(steps, config["steps"], wait))
    size = config["batch"] * config["steps"]
    speedups = [plain / ours for plain, ours in zip(times["plain"], times["ours"], strict=True)]
    floors = [bare / ours for bare, ours in zip(times["bare"], times["ours"], strict=True)]
    result: dict[str, Any] = {kind: round(size / statistics.median(spent), 1) for kind, spent in times.items()}
    result |= {"speedup": round(statistics.median(speedups), 2)}
    result |= {"speedup_range": [round(min(speedups), 2), round(max(speedups), 2)]}
    return result | {"floor": round(statistics.median(floors), 3)}


def peak_memory(kind: str, config: dict[str, Any], num_steps: int, answer: Any) -> None:
    """Send the largest memory in MiB that a process needs for a few steps."""
    torch.set_num_threads(config["threads"])
    steps = build(kind, config, num_steps)
    for _ in range(config["warmup"]):
        next(steps)
    answer.send(round(torch.cuda.max_memory_allocated() / 2**20 if config["device"] == "cuda" else resident_peak()))


def resident_peak() -> float:
    """Return the most memory in MiB that this process has had resident; getrusage would count its parent's too."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 2**10


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
@click.option("--threads", default=2, show_default=True, help="CPU threads.")
@click.option("--precision", default="auto", show_default=True)
@click.option("--compile", "compiling", default="auto", show_default=True, help="auto, always, never.")
@click.option("--output", type=click.Path(path_type=Path), help="JSON file to write besides.")
def main(num_steps: tuple[int, ...], compiling: str, output: Path | None, **config: Any) -> None:
    """Print a table."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    config |= {"device": device, "compile": compiling}
    config["precision"] = choose_precision(config["precision"], torch.device(device))
    torch.set_num_threads(config["threads"])
    results = {}
    click.echo(f"{config['teacher']} to {config['student']}, {json.dumps(config)}, PyTorch {torch.__version__}")
    click.echo(" N  plain img/s  ours img/s  speedup (range)     floor/ours  peak MiB plain, ours")
    for n in num_steps:
        row = measure(config, n)
        row |= {f"{kind}_mib": measured_memory(kind, config, n) for kind in ("plain", "ours")}
        results[str(n)] = row
        low, high = row["speedup_range"]
        click.echo(
            f"{n:2}  {row['plain']:11}  {row['ours']:10}  {row['speedup']:.2f} ({low:.2f} to {high:.2f})"
            f"  {row['floor']:10.1%}  {row['plain_mib']}, {row['ours_mib']}"
        )
    if output is not None:
        output.write_text(json.dumps({"config": config, "torch": torch.__version__, "results": results}, indent=2))


if __name__ == "__main__":
    main()
