"""How the state moves along the flow: its distance to the teacher, how straight it goes, what each step knows."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from models.classifier import Classifier
from models.flow import FlowPath, FlowTransfer
from models.integrate import step_times
from models.students import FlowStudent, SampledStudent
from pipeline.data.augmentation import Batch
from pipeline.data.dataset import Split
from pipeline.data.packed_batches import ordered_batches
from pipeline.distillation.teacher_loss import FrozenTeacher

BATCH_SIZE = 256
COLUMNS = (
    "flow",
    "step",
    "time",
    "state_distance",
    "estimate_distance",
    "speed",
    "bend",
    "step_accuracy",
    "ensemble_accuracy",
)
SUMMARY_COLUMNS = ("flow", "num_steps", "accuracy", "distance", "bend")
Row = dict[str, Any]


class Traced(NamedTuple):
    """A student with flows, and what its flows are compared with."""

    student: SampledStudent
    transforms: Sequence[nn.Module]
    """T of each flow."""
    names: Sequence[str]
    """What each flow moves: ``logits``, or the student's stage."""
    teacher: FrozenTeacher | None
    """Returns the target of each flow; None where the method has no teacher."""


def traced(student: nn.Module, adapter: nn.Module | None, teacher: FrozenTeacher | None) -> Traced | None:
    """Return what can be traced of a ``student`` and its ``adapter``; None where there is no flow.

    The flow that helped a plain student (``fm_kt_theta``) is traced on that student's features.
    """
    if isinstance(student, Classifier) and isinstance(adapter, FlowTransfer):
        student = FlowStudent(student.normalize, student.backbone, adapter)
    if isinstance(student, FlowStudent):
        return Traced(student, [student.flow.transform], ["logits"], teacher)
    if not isinstance(student, SampledStudent):
        return None
    assert isinstance(adapter, nn.ModuleList)
    assert isinstance(student.flows, nn.ModuleDict)
    return Traced(student, list(adapter), [f"stage {stage}" for stage in student.flows], teacher)


@torch.no_grad()
def trace(subject: Traced, split: Split, num_steps: int, device: torch.device) -> list[Row]:
    """Return a row (see ``COLUMNS``) for each step of each flow, averaged over ``split``.

    Distances are ||T(z) - X_T|| / ||X_T|| of each image, logits less their mean; ``state_distance`` is that of the
    state after the step. ``speed`` is ||v_i|| / ||Z_0||. ``bend`` is ||v_i - u|| / ||u||, where u = Z_0 - Z_N is the
    straight line: 0 everywhere is a straight path. ``step_accuracy`` is that of the step's own logits,
    ``ensemble_accuracy`` that of a student that stops after this step.
    """
    sums: dict[tuple[str, int], dict[str, float]] = {}
    for module in (subject.student, *subject.transforms):
        module.eval().to(device)
    for batch in ordered_batches(split, BATCH_SIZE, device):
        for key, figures in _batch_figures(subject, batch, num_steps):
            total = sums.setdefault(key, dict.fromkeys(figures, 0.0))
            for name, value in figures.items():
                total[name] += float(value.sum()) / len(split)
    times = step_times(num_steps)
    return [{"flow": flow, "step": i + 1, "time": times[i], **figures} for (flow, i), figures in sums.items()]


def summarize_trace(rows: Sequence[Row], num_steps: int) -> list[Row]:
    """Return a row (see ``SUMMARY_COLUMNS``) for each flow of a trace of ``num_steps`` steps.

    ``accuracy`` is that of the student with so many steps, ``distance`` that of the last estimate, ``bend`` the mean.
    """
    flows = dict.fromkeys(row["flow"] for row in rows)
    walks = [[row for row in rows if row["flow"] == flow] for flow in flows]
    return [
        {
            "flow": trajectory[-1]["flow"],
            "num_steps": num_steps,
            "accuracy": trajectory[-1]["ensemble_accuracy"],
            "distance": trajectory[-1].get("estimate_distance"),
            "bend": sum(row["bend"] for row in trajectory) / num_steps,
        }
        for trajectory in walks
    ]


def _batch_figures(
    subject: Traced, batch: Batch, num_steps: int
) -> Iterator[tuple[tuple[str, int], Mapping[str, Tensor]]]:
    """Yield ((flow, step), figure to its value (B,) for each image)."""
    steps = subject.student.step_logits(batch.images, num_steps)
    targets = subject.teacher(batch.images) if subject.teacher else [None] * len(subject.names)
    paths = subject.student.paths(batch.images, num_steps)
    for name, path, transform, target in zip(subject.names, paths, subject.transforms, targets, strict=True):
        for i in range(num_steps):
            figures = {
                "speed": _norm(path.velocities[i]) / _norm(path.states[0]),
                "bend": _curvature(path, i),
                "step_accuracy": _correct(steps[i], batch),
                "ensemble_accuracy": _correct(subject.student.combine(steps[: i + 1]), batch),
            }
            if target is not None:
                figures["state_distance"] = _distance(transform(path.states[i + 1]), target)
                figures["estimate_distance"] = _distance(transform(path.estimates[i]), target)
            yield (name, i), figures


def _correct(logits: Tensor, batch: Batch) -> Tensor:
    return (logits.argmax(dim=1) == batch.labels).float()


def _norm(x: Tensor) -> Tensor:
    return x.flatten(1).square().sum(dim=1).sqrt().clamp(min=1e-12)


def _curvature(path: FlowPath, step: int) -> Tensor:
    line = path.states[0] - path.states[-1]
    return _norm(path.velocities[step] - line) / _norm(line)


def _distance(output: Tensor, target: Tensor) -> Tensor:
    if output.dim() == 2:  # a constant added to all logits of an image means nothing
        output, target = (x - x.mean(dim=1, keepdim=True) for x in (output, target))
    return _norm(output - target) / _norm(target)
