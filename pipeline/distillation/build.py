"""Methods put together: what a student is trained with."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from models.classifier import Classifier
from models.flow import FlowTransfer
from models.students import FeatureFlowStudent, FlowStudent
from pipeline.core.errors import UserError
from pipeline.core.files import Json
from pipeline.distillation.criterion import build_criterion
from pipeline.distillation.feature_objectives import FeatureDistillation, FeatureFlowMatching
from pipeline.distillation.logit_objectives import (
    FlowMatching,
    LogitDistillation,
    OnlineFlowMatching,
    ThetaFlowMatching,
)
from pipeline.distillation.methods import METHODS
from pipeline.distillation.teacher_loss import FrozenTeacher, StepSampler, TeacherLoss
from pipeline.networks.saved import load_network
from pipeline.training.objective import Objective, Supervised

Settings = Mapping[str, Any]


def load_teacher(folder: Path) -> Classifier:
    """Return the teacher in ``folder``.

    Raises:
        UserError: there is no teacher, or something else.
    """
    network, about = load_network(folder)
    if not isinstance(network, Classifier):
        raise UserError(f"{folder}: holds a {about['kind']}, a teacher is a classifier; give the teacher's folder")
    return network


def frozen_teacher(folder: Path, about: Json, device: torch.device) -> FrozenTeacher | None:
    """Return what the student described by ``about`` was taught by, on ``device``; None where it had no teacher.

    Raises:
        UserError: the teacher is missing, or something else.
    """
    stages = about["teacher_stages"]
    return None if stages is None else FrozenTeacher(load_teacher(folder), stages).to(device)


def build_objective(
    distill: Settings,
    student: nn.Module,
    adapter: nn.Module | None,
    teacher: Classifier | None,
    *,
    label_smoothing: float,
) -> Objective:
    """Return what ``student`` is trained with under ``distill``, the parameters distill_student.

    ``student`` and ``adapter`` are made by the recipes of the same parameters; see ``pipeline.distillation.network_specs``.

    Raises:
        UserError: the method needs a teacher and there is none.
    """
    method, flow = distill["method"], distill["flow"]
    common: dict[str, Any] = {"label_smoothing": label_smoothing}
    if method == "none":
        return Supervised(student, **common)
    common["weight"] = distill["loss_weight"]
    metric = build_criterion(distill["loss"], distill["losses"])
    steps = StepSampler(flow["num_steps"], flow["num_steps_warmup"])
    if not METHODS[method].needs_teacher:
        assert isinstance(student, FlowStudent)
        return OnlineFlowMatching(student, metric, steps=steps, **common)
    if teacher is None:
        raise UserError(f"distill_student.method: {method!r} needs a teacher; run train_teacher (dvc repro) first")
    pair_ratio = flow["pair_ratio"] if method.startswith("fm_kt") else 1.0
    if distill["transfer"] == "features":
        stages = [pair[1] for pair in distill["feature_pairs"]]
        teaching = TeacherLoss(FrozenTeacher(teacher, stages), metric, pair_ratio=pair_ratio)
        return _feature_objective(distill, student, adapter, teaching, steps, common)
    teaching = TeacherLoss(FrozenTeacher(teacher), metric, pair_ratio=pair_ratio)
    return _logit_objective(distill, student, adapter, teaching, steps, common)


def _logit_objective(
    distill: Settings, student: nn.Module, adapter: nn.Module | None, teaching: TeacherLoss, steps: StepSampler, common: Any
) -> Objective:
    if isinstance(student, FlowStudent):
        return FlowMatching(student, teaching, steps=steps, **common)
    assert isinstance(student, Classifier)
    if isinstance(adapter, FlowTransfer):
        theta = {f"theta_{key}": value for key, value in distill["theta"].items()}
        return ThetaFlowMatching(student, adapter, teaching, steps=steps, **theta, **common)
    return LogitDistillation(student, teaching, **common)


def _feature_objective(
    distill: Settings, student: nn.Module, adapter: nn.Module | None, teaching: TeacherLoss, steps: StepSampler, common: Any
) -> Objective:
    assert isinstance(adapter, nn.ModuleList)
    if isinstance(student, FeatureFlowStudent):
        return FeatureFlowMatching(student, adapter, teaching, steps=steps, **common)
    assert isinstance(student, Classifier)
    stages = [pair[0] for pair in distill["feature_pairs"]]
    return FeatureDistillation(student, adapter, teaching, stages=stages, **common)
