"""How long the trainings of a parameters file will take: their first steps, taken for real and thrown away."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from pipeline.core.errors import UserError
from pipeline.core.files import read_json
from pipeline.core.torch_setup import set_up_torch
from pipeline.data.batch import TrainingBatches
from pipeline.distillation.building import build_distillation
from pipeline.distillation.stored_teacher import StoredTeacher
from pipeline.networks.programs import find_program
from pipeline.params.schema import Params
from pipeline.tasks.data import TaskData, open_data
from pipeline.training.execution import choose_execution
from pipeline.training.foretelling import FirstSteps, StepTime
from pipeline.training.loop import build_step, refusals_explained
from pipeline.training.objective import Objective
from pipeline.training.progress import peak_memory
from pipeline.training.run import open_batches
from pipeline.training.settings import Training
from pipeline.training.step import TrainingStep
from pipeline.training.teacher import find_teacher, open_teacher


class Estimate(NamedTuple):
    """What a training will take."""

    stage: str
    images: int
    """In the training split, mixed up anew in each pass."""
    num_steps: int
    seconds: float
    memory: int
    """Peak so far, in bytes, of all that this process has done."""
    others: float
    """Share of the CPU that other programs took while it was measured, and slowed it by that."""


def estimate_trainings(params: Params, data: Path) -> Iterator[Estimate]:
    """Yield the estimate of each training of ``params`` on the prepared ``data``, as it is measured, on one process.

    Raises:
        UserError: the data have not been prepared, or a network does not fit them.
    """
    if not (data / "data.json").exists():
        raise UserError(f"{data}: holds no prepared data; run dvc repro prepare_data first")
    device, prepared = set_up_torch("estimate", params.base), open_data(data)

    settings, task = params.train_teacher, prepared.training

    def some_teacher() -> nn.Module:
        if find_program(settings.backbone) is not None:
            return open_teacher(settings, prepared, device).network
        return find_teacher(settings, prepared.info, task).network.to(device)

    if params.distill_student.needs_teacher and settings.training.epochs > 0:
        supervision = task.supervision(prepared.info, **settings.training.supervision_settings())
        objective = open_teacher(settings, prepared, device).objective(settings, task, supervision)
        yield _estimate("train_teacher", objective, settings.training, params, prepared, device)
    if params.distill_student.training.epochs > 0:
        objective = build_distillation(params.distill_student, prepared, some_teacher).objective
        yield _estimate("distill_student", objective, params.distill_student.training, params, prepared, device)


def _estimate(
    stage: str, objective: Objective, settings: Training, params: Params, prepared: TaskData, device: torch.device
) -> Estimate:
    batches = open_batches(
        prepared.folder, prepared.training, settings, device, repeats=objective.num_views is not None
    )
    execution = choose_execution(device, params.execution, precision=settings.precision, network=objective.network)
    step = build_step(objective, execution, settings, steps_per_epoch=len(batches))
    step.begin_epoch(settings.epochs - 1)  # where steps and warm-ups cost what most of the training costs
    num_steps = settings.epochs * len(batches)
    num_new = min(objective.num_views or settings.epochs, settings.epochs) * len(batches)
    with refusals_explained(settings, key=f"{stage}.training"):
        found = _time_of_a_step(step, batches)
        seconds, others = found.seconds * num_new, found.others
        if isinstance(objective.teacher, StoredTeacher) and num_new < num_steps:
            found = _time_with_stored(objective.teacher, step, batches)
            seconds, others = seconds + found.seconds * (num_steps - num_new), max(others, found.others)
    num_images = read_json(prepared.folder / "data.json")["sizes"]["train"]  # classes may count several on an image
    return Estimate(stage, num_images, num_steps, seconds, peak_memory(), others)


def _time_with_stored(teacher: StoredTeacher, step: TrainingStep, batches: TrainingBatches) -> StepTime:
    """Return what a step takes whose logits of the ``teacher`` are read from disk."""
    with tempfile.TemporaryDirectory() as folder:
        teacher.keep_in(Path(folder))
        teacher.set_epoch(0)
        _time_of_a_step(step, batches)  # stores them
        return _time_of_a_step(step, batches)


def _time_of_a_step(step: TrainingStep, batches: TrainingBatches) -> StepTime:
    first_steps = FirstSteps()
    while True:
        for batch in batches.epoch(first_steps.taken):
            step(batch)
            found = first_steps.step()
            if found is not None:
                return found
