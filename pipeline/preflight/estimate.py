"""How long the trainings of a parameters file will take: their first steps, taken for real and thrown away."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch

from models.classifier import Classifier
from pipeline.core.errors import UserError
from pipeline.core.torch_setup import set_up_torch
from pipeline.data.batch import TrainingBatches
from pipeline.distillation.building import build_distillation
from pipeline.params.schema import Params
from pipeline.tasks.data import TaskData, open_data
from pipeline.training.execution import choose_execution
from pipeline.training.loop import build_step, nondeterminism_explained
from pipeline.training.objective import Objective
from pipeline.training.progress import FORETELLING, peak_memory, wait_for_device
from pipeline.training.run import open_batches
from pipeline.training.settings import Training
from pipeline.training.step import TrainingStep
from pipeline.training.teacher import build_teacher, find_teacher


class Estimate(NamedTuple):
    """What a training will take."""

    stage: str
    images: int
    """In the training split, mixed up anew in each pass."""
    num_steps: int
    seconds: float
    memory: int
    """Peak so far, in bytes, of all that this process has done."""


def estimate_trainings(params: Params, data: Path) -> Iterator[Estimate]:
    """Yield the estimate of each training of ``params`` on the prepared ``data``, as it is measured, on one process.

    Raises:
        UserError: the data have not been prepared, or a network does not fit them.
    """
    if not (data / "data.json").exists():
        raise UserError(f"{data}: holds no prepared data; run dvc repro prepare_data first")
    device, prepared = set_up_torch("estimate", params.base), open_data(data)

    def random_teacher() -> Classifier:
        teacher = find_teacher(params.train_teacher, prepared.info, prepared.training).network.to(device)
        assert isinstance(teacher, Classifier)
        return teacher

    settings, task = params.train_teacher.training, prepared.training
    if params.distill_student.needs_teacher and settings.epochs > 0:
        supervision = task.supervision(prepared.info, **settings.supervision_settings())
        teacher = build_teacher(params.train_teacher, prepared.info, task)
        objective = teacher.objective(params.train_teacher, task, supervision)
        yield _estimate("train_teacher", objective, settings, params, prepared, device)
    if params.distill_student.training.epochs > 0:
        objective = build_distillation(params.distill_student, prepared, random_teacher).objective
        yield _estimate("distill_student", objective, params.distill_student.training, params, prepared, device)


def _estimate(
    stage: str, objective: Objective, settings: Training, params: Params, prepared: TaskData, device: torch.device
) -> Estimate:
    batches = open_batches(prepared.folder, prepared.training, settings, device)
    execution = choose_execution(device, params.execution, precision=settings.precision)
    step = build_step(objective, execution, settings, steps_per_epoch=len(batches))
    step.begin_epoch(settings.epochs - 1)  # where steps and warm-ups cost what most of the training costs
    num_steps = settings.epochs * len(batches)
    with nondeterminism_explained():
        seconds = _seconds_of_a_step(step, batches) * num_steps
    return Estimate(stage, sum(prepared.info.class_counts), num_steps, seconds, peak_memory())


def _seconds_of_a_step(step: TrainingStep, batches: TrainingBatches) -> float:
    taken = 0
    started = 0.0
    while True:
        for batch in batches.epoch(taken):
            step(batch)
            taken += 1
            if taken == 1:  # it starts workers, and is not timed
                wait_for_device()
                started = time.perf_counter()
            if taken == 1 + FORETELLING:
                wait_for_device()
                return (time.perf_counter() - started) / FORETELLING
