"""The trace of a flow against figures computed image by image."""

from collections import defaultdict
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from models.classifier import Classifier
from models.factory import build_classifier
from models.layers.shape_transform import build_feature_transforms
from models.schedules import SCHEDULES
from models.students import FlowStudent, build_feature_flow_student, build_flow_student
from pipeline.data.dataset import Split
from pipeline.distillation.teacher_loss import FrozenTeacher
from pipeline.evaluation import flow_diagnostics as flow_trace
from pipeline.evaluation.flow_diagnostics import Row, Traced, summarize_trace, trace, traced

PLAIN = {"backbone": "resnet8", "num_classes": 4, "mean": [0.5] * 3, "std": [0.25] * 3}
FLOW = {**PLAIN, "schedule": "rectified", "meta_encoder": "conv", "time_scale": 500.0}
STEPS = 3
GENERATOR = torch.Generator().manual_seed(0)
SPLIT = Split(torch.randint(256, (11, 3, 8, 8), generator=GENERATOR, dtype=torch.uint8), torch.arange(11) % 4)
IMAGES = SPLIT.images / 255


@pytest.fixture(autouse=True)
def _uneven_batches(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(flow_trace, "BATCH_SIZE", 4)
    with torch.no_grad():
        yield


def make_student(**changes: str) -> FlowStudent:
    """Return a student whose predictions differ from image to image and from step to step."""
    torch.manual_seed(1)
    student = build_flow_student(**{**FLOW, **changes})
    student.flow.transform.linear.bias -= student.eval()(IMAGES, STEPS).mean(dim=0)
    return student.train()


def make_teacher(*stages: int) -> FrozenTeacher:
    torch.manual_seed(2)
    return FrozenTeacher(build_classifier(**PLAIN), stages)


def rows_of(subject: Traced | None, num_steps: int = STEPS) -> list[Row]:
    assert subject is not None
    return trace(subject, SPLIT, num_steps, torch.device("cpu"))


def accuracy(logits: Tensor) -> float:
    return sum(int(row.argmax() == label) for row, label in zip(logits, SPLIT.labels, strict=True)) / len(SPLIT)


def relative(output: Tensor, target: Tensor) -> float:
    """Return the distance of one image's output from its target; logits are centred."""
    if output.dim() == 2:
        output, target = output - output.mean(), target - target.mean()
    return float((output - target).norm() / target.norm())


def expected_rows(subject: Traced) -> list[Row]:
    """Return what ``trace`` should, from one image at a time; for feature maps, what a step leads to is its own."""
    student, sums = subject.student.eval(), defaultdict(float)
    for image in IMAGES[:, None]:
        for f, path in enumerate(student.paths(image, STEPS)):
            target, transform = subject.teacher(image)[f], subject.transforms[f]
            for i, v in enumerate(path.velocities):
                sums[f, i, "speed"] += float(v.norm() / path.states[0].norm())
                sums[f, i, "bend"] += relative(v.flatten(), (path.states[0] - path.states[-1]).flatten())
                sums[f, i, "state_distance"] += relative(transform(path.states[i + 1]), target)
                sums[f, i, "estimate_distance"] += relative(transform(path.estimates[i]), target)
    steps = student.step_logits(IMAGES, STEPS)
    rows = []
    for f, name in enumerate(subject.names):
        for i in range(STEPS):
            stopped = sum(steps[: i + 1]) if name == "logits" else steps[i]
            figures = {key: value / len(SPLIT) for (flow, step, key), value in sums.items() if (flow, step) == (f, i)}
            figures |= {"step_accuracy": accuracy(steps[i]), "ensemble_accuracy": accuracy(stopped)}
            rows.append({"flow": name, "step": i + 1, "time": 1 - i / STEPS, **figures})
    return rows


def assert_same(rows: list[Row], expected: list[Row]) -> None:
    assert [row.pop("flow") for row in rows] == [row.pop("flow") for row in expected]
    for row, wanted in zip(rows, expected, strict=True):
        assert row == pytest.approx(wanted, rel=1e-4)


@pytest.mark.parametrize("schedule", sorted(SCHEDULES))
@pytest.mark.parametrize("helps", [False, True])
def test_a_trace_at_the_logits_averages_the_figures_of_each_image(schedule: str, helps: bool) -> None:
    """Of a student's own flow, and of one that helped a plain student with the same backbone."""
    student = make_student(schedule=schedule)
    plain = Classifier(student.backbone, nn.Identity(), mean=PLAIN["mean"], std=PLAIN["std"])
    subject = traced(plain, student.flow, make_teacher()) if helps else traced(student, None, make_teacher())
    rows = rows_of(subject)
    assert all(row.keys() == set(flow_trace.COLUMNS) for row in rows)
    assert rows[-1]["ensemble_accuracy"] == pytest.approx(accuracy(student(IMAGES, STEPS)))
    assert len({row["step_accuracy"] for row in rows}) > 1
    assert_same(rows, expected_rows(subject))


def test_a_trace_at_feature_maps_averages_the_figures_of_each_flow() -> None:
    torch.manual_seed(1)
    student = build_feature_flow_student(stages=[2, 3], **FLOW)
    student.head.linear.bias -= student.eval()(IMAGES, STEPS).mean(dim=0)
    shapes = [(student.backbone.widths[i], m.shape[1], m.shape[2:]) for i, m in enumerate(make_teacher(2, 3)(IMAGES), 1)]
    subject = traced(student, build_feature_transforms(shapes=shapes), make_teacher(2, 3))
    rows = rows_of(subject)
    assert [row["flow"] for row in rows] == ["stage 2"] * STEPS + ["stage 3"] * STEPS
    assert rows[-1]["ensemble_accuracy"] == pytest.approx(accuracy(student(IMAGES, STEPS)))
    assert_same(rows, expected_rows(subject))


def test_only_a_constant_velocity_does_not_bend() -> None:
    student = make_student()
    assert all(row["bend"] > 0.1 for row in rows_of(traced(student, None, None)))
    del student.flow.velocity
    student.flow.velocity = lambda *, x, t: torch.full_like(x, 2.0)  # noqa: ARG005
    rows = rows_of(traced(student, None, None))
    assert [row["bend"] for row in rows] == pytest.approx([0.0] * STEPS, abs=1e-5)
    features = student.features(IMAGES).flatten(1)
    speed = float((2 * features.shape[1] ** 0.5 / features.norm(dim=1)).mean())
    assert [row["speed"] for row in rows] == pytest.approx([speed] * STEPS)


def test_without_a_teacher_there_are_no_distances() -> None:
    rows = rows_of(traced(make_student(), None, None), 2)
    assert all(row.keys() == set(flow_trace.COLUMNS) - {"state_distance", "estimate_distance"} for row in rows)
    assert summarize_trace(rows, 2)[0]["distance"] is None


@pytest.mark.parametrize("helper", [None, nn.ModuleList([nn.Identity()])])
def test_a_plain_student_without_a_flow_has_no_trace(adapter: nn.Module | None) -> None:
    assert traced(build_classifier(**PLAIN), adapter, make_teacher()) is None


def test_a_summary_has_the_end_of_each_walk_and_the_mean_bend() -> None:
    keys = ("flow", "ensemble_accuracy", "estimate_distance", "bend")
    walks = [
        ("stage 1", 0.5, 0.9, 0.25),
        ("stage 1", 0.7, 0.8, 0.5),
        ("stage 2", 0.4, 0.6, 0.0),
        ("stage 2", 0.6, 0.3, 1.0),
    ]
    summary = summarize_trace([dict(zip(keys, row, strict=True)) for row in walks], 2)
    expected = [("stage 1", 2, 0.7, 0.8, 0.375), ("stage 2", 2, 0.6, 0.3, 0.5)]
    assert summary == [dict(zip(flow_trace.SUMMARY_COLUMNS, row, strict=True)) for row in expected]
