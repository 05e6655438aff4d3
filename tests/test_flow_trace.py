"""The trace of a flow against figures computed image by image."""

import math
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from models.classifier import Classifier
from models.factory import build_classifier
from models.layers.shape_transform import LogitTransform, build_feature_transforms
from models.schedules import SCHEDULES
from models.students import FlowStudent, SampledStudent, build_feature_flow_student, build_flow_student
from pipeline.data.dataset import Split
from pipeline.distillation.frozen_teacher import FrozenTeacher
from pipeline.distillation.traced_flows import TracedFlows, traced_flows
from pipeline.evaluation.flow_diagnostics import FlowDiagnostics, Row, columns, summary_columns
from pipeline.tasks.classification.targets import ClassTargets
from pipeline.tasks.table import get_task

PLAIN: dict[str, Any] = {"backbone": "resnet8", "num_classes": 4, "mean": [0.5] * 3, "std": [0.25] * 3}
FLOW: dict[str, Any] = {**PLAIN, "schedule": "rectified", "meta_encoder": "conv", "time_scale": 500.0}
STEPS = 3
GENERATOR = torch.Generator().manual_seed(0)
LABELS = torch.arange(11) % 4
SPLIT = Split(torch.randint(256, (11, 3, 8, 8), generator=GENERATOR, dtype=torch.uint8), ClassTargets(LABELS))
IMAGES = SPLIT.images / 255

TASK = get_task("classification")


@pytest.fixture(autouse=True)
def _uneven_batches(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(TASK, "batch_size", 4)
    with torch.no_grad():
        yield


def make_student(**changes: Any) -> FlowStudent:
    """Return a student whose predictions differ from image to image and from step to step."""
    torch.manual_seed(1)
    student = build_flow_student(**{**FLOW, **changes})
    assert isinstance(student.flow.transform, LogitTransform)
    student.flow.transform.linear.bias -= student.eval()(IMAGES, STEPS).mean(dim=0)
    return student.train()


def make_teacher(*stages: int) -> FrozenTeacher:
    torch.manual_seed(2)
    return FrozenTeacher(build_classifier(**PLAIN), stages)


def flows_of(student: nn.Module, adapter: nn.Module | None = None) -> TracedFlows:
    flows = traced_flows(student, adapter)
    assert flows is not None
    return flows


def diagnostics(flows: TracedFlows, teacher: FrozenTeacher | None) -> FlowDiagnostics:
    return FlowDiagnostics(flows, teacher, TASK)


def rows_of(flows: TracedFlows, teacher: FrozenTeacher | None = None, num_steps: int = STEPS) -> list[Row]:
    return diagnostics(flows, teacher).trace(SPLIT, num_steps, torch.device("cpu"))


def accuracy(logits: Tensor) -> float:
    return sum(int(row.argmax() == label) for row, label in zip(logits, LABELS, strict=True)) / len(SPLIT)


def relative(output: Tensor, target: Tensor) -> float:
    """Return the distance of one image's output from its target; logits are centred."""
    if output.dim() == 2:
        output, target = output - output.mean(), target - target.mean()
    return float((output - target).norm() / target.norm())


def expected_rows(flows: TracedFlows, teacher: FrozenTeacher) -> list[Row]:
    """Return what ``trace`` should, from one image at a time; for feature maps, what a step leads to is its own."""
    student: SampledStudent = flows.student.eval()
    sums: dict[tuple[int, int, str], float] = defaultdict(float)
    for image in IMAGES[:, None]:
        for f, path in enumerate(student.trajectories(image, STEPS)):
            target, transform = teacher(image)[f], flows.transforms[f]
            for i, v in enumerate(path.velocities):
                sums[f, i, "speed"] += float(v.norm() / path.states[0].norm())
                sums[f, i, "curvature"] += relative(v.flatten(), (path.states[0] - path.states[-1]).flatten())
                sums[f, i, "state_distance"] += relative(transform(path.states[i + 1]), target)
                sums[f, i, "estimate_distance"] += relative(transform(path.estimates[i]), target)
    steps = student.step_predictions(IMAGES, STEPS)
    rows = []
    for f, name in enumerate(flows.names):
        for i in range(STEPS):
            stopped = sum(steps[: i + 1], torch.zeros_like(steps[0])) if name == "logits" else steps[i]
            figures = {key: value / len(SPLIT) for (flow, step, key), value in sums.items() if (flow, step) == (f, i)}
            share = accuracy(stopped)
            figures |= {"step_accuracy": accuracy(steps[i]), "ensemble_accuracy": share}
            figures["ensemble_accuracy_standard_error"] = math.sqrt(share * (1 - share) / len(SPLIT))
            rows.append({"flow": name, "step": i + 1, "time": 1 - i / STEPS, **figures})
    return rows


def assert_same(rows: list[Row], expected: list[Row]) -> None:
    assert [row.pop("flow") for row in rows] == [row.pop("flow") for row in expected]
    for row, wanted in zip(rows, expected, strict=True):
        assert row == pytest.approx(wanted, rel=1e-4)


@pytest.mark.parametrize("schedule", sorted(SCHEDULES))
@pytest.mark.parametrize("deploys", [True, False])
def test_a_trace_at_the_logits_averages_the_figures_of_each_image(schedule: str, *, deploys: bool) -> None:
    """Of a student's own flow, and of one beside a plain student with the same backbone."""
    student, teacher = make_student(schedule=schedule), make_teacher()
    plain = Classifier(student.backbone, nn.Identity(), mean=PLAIN["mean"], std=PLAIN["std"])
    flows = flows_of(student) if deploys else flows_of(plain, student.flow)
    rows = rows_of(flows, teacher)
    assert all(row.keys() == set(columns(TASK)) for row in rows)
    assert rows[-1]["ensemble_accuracy"] == pytest.approx(accuracy(student(IMAGES, STEPS)))
    assert len({row["step_accuracy"] for row in rows}) > 1
    assert_same(rows, expected_rows(flows, teacher))


def test_a_trace_at_feature_maps_averages_the_figures_of_each_flow() -> None:
    torch.manual_seed(1)
    student, teacher = build_feature_flow_student(stages=[2, 3], **FLOW), make_teacher(2, 3)
    assert isinstance(student.head, LogitTransform)
    student.head.linear.bias -= student.eval()(IMAGES, STEPS).mean(dim=0)
    shapes = [(student.backbone.widths[i], m.shape[1], m.shape[2:]) for i, m in enumerate(teacher(IMAGES), 1)]
    flows = flows_of(student, build_feature_transforms(shapes=shapes))
    rows = rows_of(flows, teacher)
    assert [row["flow"] for row in rows] == ["stage 2"] * STEPS + ["stage 3"] * STEPS
    assert rows[-1]["ensemble_accuracy"] == pytest.approx(accuracy(student(IMAGES, STEPS)))
    assert_same(rows, expected_rows(flows, teacher))


class Constant(nn.Module):
    """One velocity everywhere."""

    def __init__(self, velocity: float) -> None:
        super().__init__()
        self.velocity = velocity

    def forward(self, *, x: Tensor, t: Tensor) -> Tensor:  # noqa: ARG002
        return torch.full_like(x, self.velocity)


def test_only_a_constant_velocity_has_no_curvature() -> None:
    student = make_student()
    assert all(row["curvature"] > 0.1 for row in rows_of(flows_of(student)))
    student.flow.velocity = Constant(2.0)
    rows = rows_of(flows_of(student))
    assert [row["curvature"] for row in rows] == pytest.approx([0.0] * STEPS, abs=1e-5)
    features = student.features(IMAGES).flatten(1)
    speed = float((2 * features.shape[1] ** 0.5 / features.norm(dim=1)).mean())
    assert [row["speed"] for row in rows] == pytest.approx([speed] * STEPS)
    student.flow.velocity = Constant(0.0)
    assert {(row["speed"], row["curvature"]) for row in rows_of(flows_of(student))} == {(0.0, 0.0)}, "it rests"


def test_without_a_teacher_there_are_no_distances() -> None:
    flows = flows_of(make_student())
    rows = rows_of(flows, num_steps=2)
    assert all(row.keys() == set(columns(TASK)) - {"state_distance", "estimate_distance"} for row in rows)
    assert diagnostics(flows, None).summarize(rows, 2)[0]["distance"] is None


def test_a_tied_student_is_scored_without_a_step_as_its_classifier_answers() -> None:
    student, teacher = make_student(tied=True), make_teacher()
    student.flow.velocity = Constant(2.0)  # as it is made, it rests
    plain = student.flow.transform(student.eval().features(IMAGES))
    student.train()
    [row] = diagnostics(flows_of(student), teacher).without_a_step(SPLIT, torch.device("cpu"))
    share = accuracy(plain)
    distances = [relative(own[None], teacher(image)[0]) for own, image in zip(plain, IMAGES[:, None], strict=True)]
    assert row == {
        "flow": "logits",
        "num_steps": 0,
        "accuracy": pytest.approx(share),
        "accuracy_standard_error": pytest.approx(math.sqrt(share * (1 - share) / len(SPLIT))),
        "distance": pytest.approx(sum(distances) / len(SPLIT), rel=1e-4),
        "curvature": None,
    }
    assert [*row] == summary_columns(TASK)
    [one_step] = rows_of(flows_of(student), teacher, 1)
    assert row["distance"] != pytest.approx(one_step["estimate_distance"], rel=1e-2), "a step would show"
    assert diagnostics(flows_of(student), None).without_a_step(SPLIT, torch.device("cpu"))[0]["distance"] is None


def test_a_student_that_was_not_trained_without_a_step_is_not_scored_so() -> None:
    student = make_student()
    assert diagnostics(flows_of(student), make_teacher()).without_a_step(SPLIT, torch.device("cpu")) == []
    plain = Classifier(student.backbone, nn.Identity(), mean=PLAIN["mean"], std=PLAIN["std"])
    beside = flows_of(plain, student.flow)
    assert diagnostics(beside, make_teacher()).without_a_step(SPLIT, torch.device("cpu")) == []


@pytest.mark.parametrize("adapter", [None, nn.ModuleList([nn.Identity()])])
def test_a_student_without_a_flow_has_no_trace(adapter: nn.Module | None) -> None:
    assert traced_flows(build_classifier(**PLAIN), adapter) is None


def test_a_summary_has_the_end_of_each_trajectory_and_the_mean_curvature() -> None:
    keys = ("flow", "ensemble_accuracy", "ensemble_accuracy_standard_error", "estimate_distance", "curvature")
    trajectories = [
        ("stage 1", 0.5, 0.05, 0.9, 0.25),
        ("stage 1", 0.7, 0.04, 0.8, 0.5),
        ("stage 2", 0.4, 0.03, 0.6, 0.0),
        ("stage 2", 0.6, 0.02, 0.3, 1.0),
    ]
    rows = [dict(zip(keys, row, strict=True)) for row in trajectories]
    summary = diagnostics(flows_of(make_student()), None).summarize(rows, 2)
    expected = [("stage 1", 2, 0.7, 0.04, 0.8, 0.375), ("stage 2", 2, 0.6, 0.02, 0.3, 0.5)]
    assert summary == [dict(zip(summary_columns(TASK), row, strict=True)) for row in expected]
