"""Meta-encoders in a width of their own against the authors' full width: accuracy, multiply-adds, parameters, latency.

    python -m benchmarks.meta_encoder_width train --images cifar10-jpeg   # an hour of one core; goes on where it ended
    python -m benchmarks.meta_encoder_width latency                       # two quiet minutes
    python -m benchmarks.meta_encoder_width table                         # writes README.md and table.csv from both

All arms of a seed see the same images in the same order, with the same crops and flips, and the same stored logits of
one teacher. The students train with the losses of the methods metric, metric_meta and fm_kt. Images are a folder with
train/<class>/ and test/<class>/.
"""

import csv
import functools
import hashlib
import itertools
import json
import math
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.measuring import write_result
from benchmarks.networks import exported
from models.deploy import with_each_num_steps
from models.factory import build_classifier, count_parameters
from models.losses import kd_loss
from models.meta_encoder import MetaEncoder
from models.students import FlowStudent, build_flow_student, build_layered_classifier
from pipeline.distillation.flow_width import choose_widths
from pipeline.networks.complexity import count_macs
from pipeline.networks.spec import NetworkSpec
from pipeline.runtimes.base import Runtime
from pipeline.runtimes.latency import describe_protocol, percentiles, random_pixels, time_in_turns

RESULTS = Path(__file__).parent / "results/meta-encoder-width"
STUDENTS = {"resnet8_x0_5": 18, "resnet8x4": 6}
"""From a narrow and a wide student (32 and 256 channels) to the epochs that each trains."""
TEACHER, TEACHER_EPOCHS = "resnet20", 16
SIZE, TEACHER_SIZE = 16, 32
CLASSES, PER_CLASS = 10, 1000
BATCH, RATE, TEMPERATURE, STEPS = 128, 0.1, 4.0, 4
SHOWN_STEPS = (1, 2, 4, 8)
COMMON: dict[str, Any] = {"num_classes": CLASSES, "mean": [0.47, 0.47, 0.47], "std": [0.25, 0.25, 0.25]}
FLOW: dict[str, Any] = {"schedule": "rectified", "time_scale": 1.0}
CPU = torch.device("cpu")
DEPLOYED_STEPS = (1, 4)
WARMUP = 20
HEADER = [
    "arm", "channels", "top-1 % (sd)", "gain over metric", "seeds", "multiply-adds", "parameters", "ms of one image"
]  # fmt: skip
PROTOCOL = f"""\
- Data: CIFAR-10 as JPEG files; {CLASSES * PER_CLASS:,} training images drawn once, all 10,000 test images, seen at
  {SIZE} x {SIZE} by the students and at {TEACHER_SIZE} x {TEACHER_SIZE} by the teacher.
- Students: SGD with Nesterov momentum 0.9, rate {RATE}, weight decay 5e-4, one epoch of warm-up, cosine; batch {BATCH};
  shifts by up to 2 pixels and flips; bf16; KD at temperature {TEMPERATURE:g} with weight 1 beside the cross-entropy;
  flows with N = {STEPS} steps in training. Last epoch; nothing was chosen on the test images.
- Arms of a seed see the same images in the same order; gains are paired by seed, with their standard error.
- Multiply-adds are those of the form that deploys by default; parameters are those of the student as trained.
- `auto` and `full` are values of `distill_student.flow.width`; `half` is half of `auto`.
"""


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
    arguments = {"backbone": backbone, "meta_encoder": arm.meta_encoder, **FLOW, **COMMON}
    (auto,) = choose_widths(NetworkSpec("flow_student", arguments), (SIZE, SIZE), "auto")
    return auto if arm.width == "auto" or auto is None else auto // 2


def build(arm: Arm, backbone: str) -> nn.Module:
    """Return the student with random weights."""
    width = width_of(arm, backbone)
    if arm.method == "metric":
        return build_classifier(backbone=backbone, **COMMON)
    if arm.method == "metric_meta":
        return build_layered_classifier(backbone=backbone, layers=arm.meta_encoder, width=width, **COMMON)
    return build_flow_student(backbone=backbone, meta_encoder=arm.meta_encoder, width=width, **FLOW, **COMMON)


class Images(NamedTuple):
    """A split at the students' and the teacher's size."""

    small: Tensor
    """(N, 3, 16, 16) in [0, 1]."""
    large: Tensor
    """(N, 3, 32, 32) in [0, 1]."""
    labels: Tensor


def read_images(folder: Path, per_class: int) -> Images:
    """Return the first ``per_class`` images of each class of ``folder`` in an order drawn once."""
    order = np.random.default_rng(0)
    pixels, labels = [], []
    for label, place in enumerate(sorted(path for path in folder.iterdir() if path.is_dir())):
        files = sorted(place.iterdir())
        for number in order.permutation(len(files))[:per_class]:
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
    flipped = torch.rand(count, generator=generator) < 0.5
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


def teacher_logits(folder: Path, train: Images, test: Images, epochs: int) -> tuple[Tensor, dict[str, Any]]:
    """Return the teacher's logits of the training images, mean of both mirror images, and what is said of it.

    It is trained once for each number of epochs on the same images.
    """
    shown = hashlib.sha256(train.large.numpy().tobytes()).hexdigest()[:8]
    path = folder / f"teacher-{epochs}-{shown}.pt"
    if not path.exists():
        torch.manual_seed(0)
        network = build_classifier(backbone=TEACHER, **COMMON)
        network = network.to(memory_format=torch.channels_last)

        def loss(batch: Tensor, chosen: Tensor) -> Tensor:
            with torch.autocast("cpu", torch.bfloat16):
                logits = network(batch)
            return functional.cross_entropy(logits.float(), train.labels[chosen])

        fit(network, train.large, loss, epochs, seed=0)
        both = [logits_of(network, train.large), logits_of(network, train.large.flip(3))]
        score = accuracy(logits_of(network, test.large), test.labels)
        torch.save({"logits": sum(both) / 2, "about": {"epochs": epochs, "accuracy": score}}, path)
    saved = torch.load(path)
    return saved["logits"], saved["about"]


def accuracy(logits: Tensor, labels: Tensor) -> float:
    """Return the share of right answers in percent."""
    return round(100 * (logits.argmax(dim=1) == labels).float().mean().item(), 2)


def train_student(
    student: nn.Module, seed: int, train: Images, test: Images, *, teacher: Tensor, epochs: int
) -> dict[int, float]:
    """Return the accuracy on ``test`` by number of steps; 1 for a student without any."""
    student = student.to(memory_format=torch.channels_last)

    def loss(batch: Tensor, chosen: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            found = student.step_logits(batch, STEPS) if isinstance(student, FlowStudent) else student(batch)[None]
        flat = found.float().flatten(0, 1)  # (steps * B, classes)
        labels = train.labels[chosen].repeat(len(found))
        return functional.cross_entropy(flat, labels) + kd_loss(found.float(), teacher[chosen], TEMPERATURE)

    fit(student, train.small, loss, epochs, seed=1000 + seed)
    if not isinstance(student, FlowStudent):
        return {1: accuracy(logits_of(student, test.small), test.labels)}
    forms = {steps: functools.partial(student, num_steps=steps) for steps in SHOWN_STEPS}
    return {steps: accuracy(logits_of(form, test.small), test.labels) for steps, form in forms.items()}


def runs_of(folder: Path) -> list[dict[str, Any]]:
    """Return what has been trained."""
    path = folder / "runs.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


students_option = click.option(
    "--student", "students", multiple=True, type=click.Choice([*STUDENTS]), default=[*STUDENTS], show_default=True
)
arms_option = click.option(
    "--arm", "arms", multiple=True, type=click.Choice([*map(str, ARMS)]), help="These alone.  [default: all]"
)
output_option = click.option(
    "--output", default=RESULTS, type=click.Path(file_okay=False, path_type=Path), help="Folder of the results."
)


def chosen(arms: Sequence[str]) -> list[Arm]:
    """Return the arms of these names; of none all."""
    return [arm for arm in ARMS if not arms or str(arm) in arms]


@click.group()
def main() -> None:
    """Train the arms, time them, write the table."""
    torch.set_num_threads(1)


@main.command()
@click.option("--images", required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--seed", "seeds", type=int, multiple=True, default=(0, 1, 2), show_default=True)
@students_option
@arms_option
@click.option("--epochs", type=int, help="Of each student.  [default: 18 and 6]")
@click.option("--teacher-epochs", default=TEACHER_EPOCHS, show_default=True)
@click.option("--per-class", default=PER_CLASS, show_default=True, help="Training and test images of a class at most.")
@output_option
@click.option("--work", default=Path(tempfile.gettempdir(), "meta-encoder-width"), type=click.Path(path_type=Path))
def train(
    *,
    images: Path,
    seeds: tuple[int, ...],
    students: tuple[str, ...],
    arms: tuple[str, ...],
    epochs: int | None,
    teacher_epochs: int,
    per_class: int,
    output: Path,
    work: Path,
) -> None:
    """Train each arm with each seed, unless runs.jsonl has it; the teacher lies in --work."""
    is_as_committed = (epochs, teacher_epochs, per_class) == (None, TEACHER_EPOCHS, PER_CLASS)
    if not is_as_committed and output.resolve() == RESULTS.resolve():
        raise click.UsageError("other epochs or images make no part of the committed results; give another --output")
    for folder in (output, work):
        folder.mkdir(parents=True, exist_ok=True)
    shown, held_out = read_images(images / "train", per_class), read_images(images / "test", per_class)
    teacher, about = teacher_logits(work, shown, held_out, teacher_epochs)
    write_result(output / "teacher.json", **about)
    for backbone, seed, arm in itertools.product(students, seeds, chosen(arms)):
        if (backbone, seed, str(arm)) in {(run["student"], run["seed"], run["arm"]) for run in runs_of(output)}:
            continue
        started = time.perf_counter()
        torch.manual_seed(seed)
        scores = train_student(
            build(arm, backbone), seed, shown, held_out, teacher=teacher, epochs=epochs or STUDENTS[backbone]
        )
        seconds = round(time.perf_counter() - started)
        run = {"student": backbone, "seed": seed, "arm": str(arm), "accuracy": scores, "seconds": seconds}
        with (output / "runs.jsonl").open("a") as file:
            file.write(json.dumps(run) + "\n")
        click.echo(json.dumps(run))


def cost(arm: Arm, backbone: str) -> dict[str, Any]:
    """Return channels of the meta-encoder, parameters as trained, and multiply-adds as deployed by number of steps."""
    torch.manual_seed(0)
    student = build(arm, backbone).eval()
    width = width_of(arm, backbone)
    if isinstance(student, FlowStudent):
        assert isinstance(student.flow.velocity, MetaEncoder)
        width = student.flow.velocity.width
    macs = {steps: count_macs(form, (SIZE, SIZE), CPU) for steps, form in deployed(student).items()}
    return {"width": width, "parameters": count_parameters(student), "macs": macs}


def deployed(student: nn.Module) -> dict[int, nn.Module]:
    """Return the student's smallest form for one and for four steps; for one where it takes none."""
    networks = with_each_num_steps(student, DEPLOYED_STEPS)
    return {network.num_steps or 1: network.smallest_form((SIZE, SIZE)) for network in networks}


@main.command()
@click.option("--iterations", default=200, show_default=True)
@students_option
@arms_option
@output_option
def latency(*, iterations: int, students: tuple[str, ...], arms: tuple[str, ...], output: Path) -> None:
    """Time every arm of a student in turns by ONNX Runtime, one image and one thread; weights are random."""
    found: dict[str, dict[str, float]] = {}
    for backbone in students:
        with tempfile.TemporaryDirectory() as folder:
            runtimes: dict[str, Runtime] = {}
            for arm in chosen(arms):
                torch.manual_seed(0)
                for steps, form in deployed(build(arm, backbone).eval()).items():
                    path = Path(folder, f"{len(runtimes)}.onnx")
                    runtimes[f"{arm}, K = {steps}"] = exported(form, path, size=(SIZE, SIZE))
            pixels = random_pixels(1, (SIZE, SIZE))
            seconds = time_in_turns([*runtimes.values()], pixels, warmup=WARMUP, iterations=iterations)
        found[backbone] = {name: percentiles(spent)["p50"] for name, spent in zip(runtimes, seconds, strict=True)}
    protocol = f"ONNX Runtime fp32, one thread; {describe_protocol(warmup=WARMUP, iterations=iterations)}"
    write_result(output / "latency.json", protocol=protocol, **found)


class Row(NamedTuple):
    """A student of an arm with a number of steps."""

    name: str
    """Backbone, arm and K: what tells it from all others."""
    arm: Arm
    steps: int
    width: int | None
    accuracy: list[float]
    """In percent, of each seed."""
    gains: list[float]
    """Points over ``metric``, of each seed that has both."""
    macs: int
    macs_ratio: float
    """To the plain student's."""
    parameters: int
    milliseconds: float | None
    """None: not measured."""
    latency_ratio: float | None


@main.command()
@output_option
def table(*, output: Path) -> None:
    """Write README.md and table.csv from runs.jsonl, teacher.json and, where it is there, latency.json."""
    path = output / "latency.json"
    timed = json.loads(path.read_text()) if path.exists() else {}
    teacher = json.loads((output / "teacher.json").read_text())
    lines = ["# Meta-encoders in a width of their own", "", "Made by `python -m benchmarks.meta_encoder_width`.", ""]
    rows: list[Row] = []
    for backbone, epochs in STUDENTS.items():
        runs = [run for run in runs_of(output) if run["student"] == backbone]
        own = list(rows_of(backbone, runs, timed.get(backbone, {})))
        lines += [f"## {backbone}, {epochs} epochs", "", *_shown(own), ""] if own else []
        rows += own
    about = f"{TEACHER}, {teacher['epochs']} epochs, {teacher['accuracy']:.1f}% on the test images"
    lines += [PROTOCOL.rstrip(), f"- Teacher: {about}; its logits are stored, as the mean of both mirror images."]
    lines += [f"- Latency: {timed['protocol']}."] if timed else ["- Latency has not been measured yet."]
    (output / "README.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    with (output / "table.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["student", "accuracy", "gain", "seeds", "macs", "macs_ratio", "parameters", "latency_ratio"])
        for row in rows:
            gain = statistics.mean(row.gains) if row.gains else ""
            figures = [statistics.mean(row.accuracy), gain, len(row.accuracy), row.macs, row.macs_ratio, row.parameters]
            writer.writerow([row.name, *figures, row.latency_ratio])


def rows_of(backbone: str, runs: Sequence[dict[str, Any]], timed: Mapping[str, float]) -> Iterator[Row]:
    """Yield what was found of each arm of one student, given its ``runs`` and the milliseconds of an image."""
    by_arm = {arm: {r["seed"]: r["accuracy"] for r in runs if r["arm"] == str(arm)} for arm in ARMS}
    plain, plain_ms = cost(ARMS[0], backbone)["macs"][1], timed.get(f"{ARMS[0]}, K = 1")
    for arm, scores in by_arm.items():
        if not scores:
            continue
        spent = cost(arm, backbone)
        for steps, macs in spent["macs"].items():
            own = {seed: found[str(steps)] for seed, found in scores.items()}
            milliseconds = timed.get(f"{arm}, K = {steps}")
            yield Row(
                name=f"{backbone}, {arm}, K = {steps}",
                arm=arm,
                steps=steps,
                width=spent["width"] if arm.meta_encoder else None,
                accuracy=[*own.values()],
                gains=[own[seed] - by_arm[ARMS[0]][seed]["1"] for seed in own if seed in by_arm[ARMS[0]]],
                macs=macs,
                macs_ratio=macs / plain,
                parameters=spent["parameters"],
                milliseconds=milliseconds,
                latency_ratio=None if milliseconds is None or plain_ms is None else milliseconds / plain_ms,
            )


def _shown(rows: Sequence[Row]) -> list[str]:
    """Return the lines of the table of one student."""
    lines = [HEADER, ["---", *["---:"] * (len(HEADER) - 1)]]
    lines += [
        [
            f"{row.arm}, K = {row.steps}" if row.arm.method == "fm_kt" else str(row.arm),
            "" if row.width is None else str(row.width),
            _spread(row.accuracy),
            "" if row.arm == ARMS[0] else _gain(row.gains),
            str(len(row.accuracy)),
            f"{row.macs:,} ({row.macs_ratio:.2f}x)",
            f"{row.parameters:,}",
            "" if row.milliseconds is None else f"{row.milliseconds:.4f}",
        ]
        for row in rows
    ]
    return [f"| {' | '.join(line)} |" for line in lines]


def _spread(values: list[float]) -> str:
    return f"{statistics.mean(values):.2f}" + (f" ({statistics.stdev(values):.2f})" if len(values) > 1 else "")


def _gain(values: list[float]) -> str:
    """Return the mean of paired differences with its standard error."""
    if not values:
        return ""
    error = f" ± {statistics.stdev(values) / len(values) ** 0.5:.2f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):+.2f}{error}"


if __name__ == "__main__":
    main()
