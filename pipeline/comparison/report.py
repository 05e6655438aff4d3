"""What a comparison leaves behind: tables, plots, and the protocol beside them."""

import os
import platform
from collections.abc import Sequence
from pathlib import Path

import torch
import torchvision

from pipeline.comparison.config import Comparison
from pipeline.comparison.plan import Run, Trial
from pipeline.comparison.plots import plot_all
from pipeline.comparison.table import COLUMNS, markdown, summarize_methods, trial_rows
from pipeline.core.files import Json, read_json, write_csv, write_text
from pipeline.params.schema import load_params
from pipeline.tasks.base import Task
from pipeline.tasks.table import DEFAULT, get_task
from pipeline.training.settings import Optimizer, Training


def write_report(comparison: Comparison, teacher: Run, trials: Sequence[Trial], folder: Path, command: str) -> str:
    """Write table.csv, trials.csv, the plots and README.md into ``folder``; return the table as Markdown.

    ``trials`` are finished; ``command`` is what made them.
    """
    data = read_json(teacher.folder / "data" / "data.json")
    task = get_task(data.get("task", DEFAULT))
    rows = trial_rows(trials, task.primary)
    methods = summarize_methods(rows, comparison.baseline)
    write_csv(folder / "trials.csv", list(rows[0]), rows)
    write_csv(folder / "table.csv", COLUMNS, methods)
    plots = plot_all(folder, trials, rows, comparison.title, primary=task.primary, score=task.primary_title)
    table = markdown(methods, comparison.baseline, task.primary_title)
    pictures = "\n\n".join(f"![{path.stem}]({path.name})" for path in plots)
    protocol = _protocol(comparison, teacher, trials, task, data["sizes"], command)
    write_text(folder / "README.md", f"# {comparison.title}\n\n{table}\n\n{protocol}\n{pictures}\n")
    return table


PROTOCOL = """\
Made by `{command}`.

- Data: {source}; {train} images to train on, {calib} to choose K on, {test} to test on. One image is
  {point:.2f}% of the test split.
- Teacher: {teacher}. Student: {student}.
- Seeds {seeds} (initial weights, order and augmentation of the images). {training}
{methods}
- Scores are those of the last epoch on the test split, which nothing was chosen on. Where there are steps, K is the
  one calibrated on the held-out images.
- `std` is the sample standard deviation over the seeds; gains are paired by seed. Multiply-adds are those of the
  deployed network for one image; seconds are those of a whole run on a machine shared with other runs.
- torch {torch}, torchvision {torchvision}, Python {python}, {hardware}.
"""


def _protocol(
    comparison: Comparison, teacher: Run, trials: Sequence[Trial], task: Task, sizes: Json, command: str
) -> str:
    params = load_params(teacher.params)
    students = {trial.method: load_params(trial.params).distill_student for trial in trials}
    trainings = {method: describe_training(student.training) for method, student in students.items()}
    same = len(set(trainings.values())) == 1
    changes = {
        name: ", ".join(f"{key.removeprefix('distill_student.')}: {value}" for key, value in changed.items())
        for name, changed in comparison.methods.items()
    }
    lines = [f"  - {name}: {text or 'no changes'}" for name, text in changes.items()]
    if not same:
        lines = [f"{line}; trained for {trainings[name]}" for line, name in zip(lines, changes, strict=True)]
    return PROTOCOL.format(
        command=command,
        source=params.prepare_data.source,
        point=100 / sizes["test"],
        teacher=_teacher(params.train_teacher.backbone, read_json(teacher.folder / "teacher.json"), task),
        student=", ".join(dict.fromkeys(student.backbone for student in students.values())),
        training=f"Every method: {next(iter(trainings.values()))}." if same else "The methods:",
        methods="\n".join(lines),
        seeds=", ".join(map(str, comparison.seeds)),
        torch=torch.__version__,
        torchvision=torchvision.__version__,
        python=platform.python_version(),
        hardware=_hardware(),
        **sizes,
    )


def _teacher(backbone: str, report: Json, task: Task) -> str:
    score = report.get(f"test_{task.primary}")
    return "none" if score is None else f"{backbone}, {task.primary_title} {score:.2%} on test"


def describe_training(training: Training) -> str:
    """Return how long, by which optimizer and with which augmentation ``training`` goes, for a protocol."""
    schedule, augment = training.schedule, training.augment
    return (
        f"{training.epochs} epochs, batch {training.batch_size}, {_optimizer(training.optimizer)}, "
        f"schedule {schedule.name} with {schedule.warmup_epochs} epochs of warm-up, "
        f"crop padding {augment.crop_padding}, flip {'on' if augment.horizontal_flip else 'off'}"
    )


def _optimizer(optimizer: Optimizer) -> str:
    """Return the optimizer's name, learning rate and weight decay, and of its own settings those that it uses."""
    if optimizer.name == "adamw":
        own = f"betas {optimizer.betas[0]:g} and {optimizer.betas[1]:g}"
    else:
        own = f"momentum {optimizer.momentum:g}{' (Nesterov)' if optimizer.nesterov else ''}"
    name = {"adamw": "AdamW", "sgd": "SGD"}[optimizer.name]
    return f"{name} at {optimizer.learning_rate:g}, {own}, weight decay {optimizer.weight_decay:g}"


def _hardware() -> str:
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"{os.cpu_count()} CPU cores ({platform.machine()})"
