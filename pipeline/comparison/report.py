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
from pipeline.core.files import read_json, write_csv, write_text
from pipeline.params.loading import load_params
from pipeline.params.schema import Params


def write_report(comparison: Comparison, teacher: Run, trials: Sequence[Trial], folder: Path, command: str) -> str:
    """Write table.csv, trials.csv, the plots and README.md into ``folder``; return the table as Markdown.

    ``trials`` are finished; ``command`` is what made them.
    """
    rows = trial_rows(trials)
    methods = summarize_methods(rows, comparison.baseline)
    write_csv(folder / "trials.csv", list(rows[0]), rows)
    write_csv(folder / "table.csv", COLUMNS, methods)
    plots = plot_all(folder, trials, rows, comparison.title)
    table = markdown(methods, comparison.baseline)
    pictures = "\n\n".join(f"![{path.stem}]({path.name})" for path in plots)
    text = f"# {comparison.title}\n\n{table}\n\n{_protocol(comparison, teacher, command)}\n{pictures}\n"
    write_text(folder / "README.md", text)
    return table


PROTOCOL = """\
Made by `{command}`.

- Data: {source}; {train} images to train on, {calib} to choose K on, {test} to test on. One image of the test split is
  {point:.2f} points.
- Teacher: {teacher}. Student: {student}.
- Every method, where its own changes below say nothing else: {training}; seeds {seeds} (initial weights, order and
  augmentation of the images).
{methods}
- Accuracy is that of the last epoch on the test split, which nothing was chosen on. Where there are steps, K is the
  one calibrated on the held-out images.
- `std` is the sample standard deviation over the seeds; gains are paired by seed. Multiply-adds are those of the
  deployed network for one image; seconds are those of a whole run on a machine shared with other runs.
- torch {torch}, torchvision {torchvision}, Python {python}, {hardware}.
"""


def _protocol(comparison: Comparison, teacher: Run, command: str) -> str:
    params = load_params(teacher.folder / "params.yaml")
    sizes = read_json(teacher.folder / "data" / "data.json")["sizes"]
    own = read_json(teacher.folder / "teacher.json")
    learnt = "test_accuracy" in own
    changes = {
        name: ", ".join(f"{key.removeprefix('distill_student.')}: {value}" for key, value in changed.items())
        for name, changed in comparison.methods.items()
    }
    return PROTOCOL.format(
        command=command,
        source=params.prepare_data.source,
        point=100 / sizes["test"],
        teacher=f"{params.train_teacher.backbone}, {own['test_accuracy']:.2%} on test" if learnt else "none",
        student=params.distill_student.backbone,
        training=_training(params),
        methods="\n".join(f"  - {name}: {text or 'no changes'}" for name, text in changes.items()),
        seeds=", ".join(map(str, comparison.seeds)),
        torch=torch.__version__,
        torchvision=torchvision.__version__,
        python=platform.python_version(),
        hardware=_hardware(),
        **sizes,
    )


def _training(params: Params) -> str:
    training = params.distill_student.training
    optimizer, schedule = training.optimizer, training.schedule
    return (
        f"{training.epochs} epochs, batch {training.batch_size}, SGD at {optimizer.learning_rate:g} "
        f"({schedule.name}, {schedule.warmup_epochs} epochs of warm-up), momentum {optimizer.momentum:g}, "
        f"weight decay {optimizer.weight_decay:g}, crop padding {training.augment.crop_padding}, "
        f"flip {'on' if training.augment.horizontal_flip else 'off'}"
    )


def _hardware() -> str:
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"{os.cpu_count()} CPU cores ({platform.machine()})"
