"""What a comparison leaves behind: tables, plots, and the protocol beside them, all from the results that are kept."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from pipeline.comparison.config import Changes, Comparison, described
from pipeline.comparison.plan import Run, Trial
from pipeline.comparison.plots import plot_all
from pipeline.comparison.results import Result, Teaching, origins
from pipeline.comparison.table import (
    COLUMNS,
    DIFFERENCE_COLUMNS,
    STEPS_COLUMNS,
    chance_of_a_verdict,
    difference_rows,
    differences_markdown,
    markdown,
    steps_markdown,
    steps_rows,
    summarize_methods,
    trial_rows,
)
from pipeline.comparison.tuning import COLUMNS as TUNING_COLUMNS
from pipeline.comparison.tuning import Tried, at_an_end, tuning_rows
from pipeline.core.files import write_csv, write_text
from pipeline.tasks.base import Task
from pipeline.tasks.table import get_task
from pipeline.training.settings import Optimizer, Training


class Findings(NamedTuple):
    """What a comparison has found."""

    teaching: Teaching
    results: list[Result]
    """Of the trials, all methods of each seed."""
    tuning: list[Result]
    """Of the runs that tuned, and of the trials that diverged, whose values others have taken the place of."""
    tried: Mapping[str, Sequence[Tried]]
    chosen: Mapping[str, Changes]

    @property
    def seeds(self) -> list[int]:
        """Return the seeds that are finished, in their order."""
        return list(dict.fromkeys(result.seed for result in self.results))


def write_report(
    comparison: Comparison, teacher: Run, trials: Sequence[Trial], found: Findings, folder: Path, command: str
) -> str:
    """Write tables, plots and README.md into ``folder``; return the tables as Markdown.

    ``trials`` are all that are wanted; ``command`` is what made them.
    """
    task = get_task(found.teaching.task)
    rows = trial_rows(found.results, task.primary)
    methods = summarize_methods(rows, comparison.baseline)
    write_csv(folder / "trials.csv", list(rows[0]), rows)
    write_csv(folder / "table.csv", COLUMNS, methods)
    texts = [markdown(methods, comparison.baseline, task.primary_title)]
    steps = steps_rows(found.results, rows, comparison.baseline, task.primary)
    if steps:
        write_csv(folder / "steps.csv", STEPS_COLUMNS, steps)
        texts.append(steps_markdown(steps, comparison.baseline, task.primary_title))
    if comparison.differences:
        gaps = difference_rows(found.results, rows, comparison.sides, task.primary)
        write_csv(folder / "differences.csv", DIFFERENCE_COLUMNS, gaps)
        texts.append(differences_markdown(gaps))
        known = {(row["first"], row["second"]) for row in gaps}
        unknown = [f"{first} - {second}" for first, second in comparison.differences if (first, second) not in known]
        if unknown:
            texts.append(f"No seed has scores of both sides, as its runs did not score that K: {'; '.join(unknown)}.")
    if found.tuning:
        write_csv(folder / "tuning.csv", TUNING_COLUMNS, tuning_rows(found.tuning, found.chosen, task.primary))
    if len(found.seeds) < len(comparison.seeds):
        texts.append(f"{len(found.seeds)} of {len(comparison.seeds)} seeds are finished; the same command goes on.")
    plots = plot_all(folder, found.results, rows, comparison.title, primary=task.primary, score=task.primary_title)
    text = "\n\n".join(texts)
    pictures = "\n\n".join(f"![{path.stem}]({path.name})" for path in plots)
    protocol = _protocol(comparison, teacher, trials, found, task, command)
    write_text(folder / "README.md", f"# {comparison.title}\n\n{text}\n\n{protocol}\n{pictures}\n")
    return text


PROTOCOL = """\
Made by `{command}`.

- Data: {source}; {train} images to train on, {calib} to choose K on, {test} to test on. One image is
  {point:.2f}% of the test split.
- Teacher: {teacher}. Student: {student}.
- Seeds {seeds} (initial weights, order and augmentation of the images). {training}
{methods}
- Scores are those of the last epoch on the test split, which nothing was chosen on. Where there are steps, K is the
  one calibrated on the held-out images, but for the table that has each; epochs.svg shows the score on those images.
{tuning}- `std` is the sample standard deviation over the seeds; gains and differences are paired by seed, with their
  standard error. {verdicts}
- Multiply-adds are those of the deployed network for one image; seconds are those of a whole run on a machine shared
  with other runs.
- {origins}
"""


def _protocol(
    comparison: Comparison, teacher: Run, trials: Sequence[Trial], found: Findings, task: Task, command: str
) -> str:
    params, sizes = teacher.settings, found.teaching.sizes
    students = {trial.method: trial.settings.distill_student for trial in trials}
    trainings = {method: describe_training(student.training) for method, student in students.items()}
    same = len(set(trainings.values())) == 1
    lines = [f"  - {name}: {described(changes) or 'no changes'}" for name, changes in comparison.methods.items()]
    if not same:
        lines = [f"{line}; trained for {trainings[name]}" for line, name in zip(lines, students, strict=True)]
    return PROTOCOL.format(
        command=command,
        source=params.prepare_data.source,
        point=100 / sizes["test"],
        teacher=_teacher(params.train_teacher.backbone, found.teaching.score, task),
        student=", ".join(dict.fromkeys(student.backbone for student in students.values())),
        training=f"Every method: {next(iter(trainings.values()))}." if same else "The methods:",
        methods="\n".join(lines),
        seeds=", ".join(map(str, found.seeds)),
        tuning=_tuning(comparison, found, task),
        verdicts=_verdicts(len(found.seeds)),
        origins=_origins([*found.results, *found.tuning]),
        **sizes,
    )


def _teacher(backbone: str, score: float | None, task: Task) -> str:
    return "none" if score is None else f"{backbone}, {task.primary_title} {score:.2%} on test"


def _tuning(comparison: Comparison, found: Findings, task: Task) -> str:
    """Return which values were chosen for whom, by what; empty where nothing is tuned."""
    if not found.tried:
        return ""
    seeds = ", ".join(map(str, comparison.tune_seeds))
    where = f"on the held-out images, with the seeds {seeds}, which the table does not show"
    lines = [f"- Tuned {where}; {task.primary_title} there:"]
    for method, tries in found.tried.items():
        scores = "; ".join(f"{described(one.values)}: {_said(one.score)}" for one in tries)
        lines.append(f"  - {method}: **{described(found.chosen[method])}** ({scores})")
    ends = [method for method in found.tried if at_an_end(comparison, found.chosen[method])]
    if ends:
        lines.append(
            f"  - The smallest or the largest that was tried, so that one beyond may be better: {'; '.join(ends)}"
        )
    return "\n".join(lines) + "\n"


def _said(score: float | None) -> str:
    return "diverged" if score is None else f"{score:.2%}"


def _verdicts(count: int) -> str:
    """Return what the verdicts of ``count`` seeds are worth."""
    if count < 2:
        return "One seed shows no gain and no loss."
    return (
        "A verdict is given beyond two standard errors: where there is no difference, chance alone gives one in "
        f"{chance_of_a_verdict(count):.0%} of all rows with {count} seeds."
    )


def _origins(results: Sequence[Result]) -> str:
    found = origins(results)
    if len(found) == 1:
        return f"All runs: {next(iter(found))}."
    return "The runs come from different places:\n" + "\n".join(f"  - {n} of them: {one}" for one, n in found.items())


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
