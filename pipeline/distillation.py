"""Methods by name: the student that each trains, and the objective it is trained with."""

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from models.choice import choose
from models.factory import check_image_size
from models.flow_student import FlowStudent
from pipeline.artifacts import build_network, load_network
from pipeline.data.store import DataInfo
from pipeline.errors import UserError, blamed_on
from pipeline.files import Json
from pipeline.losses import dist_loss, kd_loss
from pipeline.objectives import Objective, Supervised
from pipeline.transfer import FlowMatching, FrozenTeacher, Metric, MetricDistillation

LOSSES: dict[str, Callable[..., Tensor]] = {"kd": kd_loss, "dist": dist_loss}
STUDENT_KINDS = {"fm_kt": "flow_student", "metric": "classifier", "none": "classifier"}


def student_recipe(method: str, backbone: str, info: DataInfo, flow: Mapping[str, Any]) -> tuple[str, Json]:
    """Return (kind, arguments) from which ``pipeline.artifacts.build_network`` makes the student of ``method``."""
    kind = choose(STUDENT_KINDS, method, kind="method")
    arguments: Json = {"backbone": backbone, "num_classes": len(info.classes)}
    arguments |= {"mean": list(info.mean), "std": list(info.std)}
    if kind == "flow_student":
        arguments |= {key: flow[key] for key in ("schedule", "meta_encoder", "time_scale")}
    return kind, arguments


def build_student(kind: str, arguments: Json, image_size: tuple[int, int]) -> nn.Module:
    """Return the student with random weights.

    Raises:
        UserError: the backbone is unknown, has no feature map, or cannot take images of ``image_size``.
    """
    with blamed_on("distill_student.backbone"):
        student = build_network(kind, arguments)
        check_image_size(student, image_size, *([1] if isinstance(student, FlowStudent) else []))
    return student


def load_teacher(folder: Path) -> nn.Module:
    """Return the teacher in ``folder``.

    Raises:
        UserError: there is no teacher, or something else.
    """
    network, about = load_network(folder)
    if about["kind"] != "classifier":
        raise UserError(f"{folder}: holds a {about['kind']}, a teacher is a classifier; give the teacher's folder")
    return network


def build_metric(name: str, settings: Mapping[str, Mapping[str, float]]) -> Metric:
    """Return the metric loss ``name`` with its entry of ``settings`` filled in."""
    return functools.partial(choose(LOSSES, name, kind="loss"), **settings[name])


def build_objective(
    method: str,
    student: nn.Module,
    teacher: nn.Module | None,
    metric: Metric,
    *,
    num_steps: int,
    weight: float,
    label_smoothing: float,
) -> Objective:
    """Return what ``student`` is trained with; ``teacher`` is None only where the method needs none.

    Raises:
        UserError: the method needs a teacher and there is none.
    """
    if method == "none":
        return Supervised(student, label_smoothing=label_smoothing)
    if teacher is None:
        raise UserError(f"distill_student.method: {method!r} needs a teacher; run train_teacher (dvc repro) first")
    frozen = FrozenTeacher(teacher)
    if method == "metric":
        return MetricDistillation(student, frozen, metric, weight=weight, label_smoothing=label_smoothing)
    assert isinstance(student, FlowStudent)
    return FlowMatching(student, frozen, metric, num_steps=num_steps, weight=weight, label_smoothing=label_smoothing)
