"""Objectives: their formulas, and that a teacher is only ever listened to."""

import copy
import functools

import pytest
import torch
from pipeline.transfer import FlowMatching, FrozenTeacher, MetricDistillation
from torch import Tensor, nn
from torch.nn import functional

from models.factory import build_classifier
from models.flow_student import build_flow_student
from pipeline.data.batches import Batch
from pipeline.distillation import build_metric, build_objective
from pipeline.errors import UserError
from pipeline.losses import kd_loss
from pipeline.objectives import Supervised

STATISTICS = {"mean": [0.5] * 3, "std": [0.25] * 3}
LOSS_SETTINGS = {"kd": {"temperature": 4.0}, "dist": {"beta": 2.0, "gamma": 2.0, "temperature": 1.0}}
METRIC = functools.partial(kd_loss, temperature=4.0)


def make_batch(count: int = 8) -> Batch:
    generator = torch.Generator().manual_seed(0)
    return Batch(torch.rand(count, 3, 8, 8, generator=generator), torch.arange(count) % 4)


def make_classifier(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return build_classifier(backbone="resnet8", num_classes=4, **STATISTICS)


def make_student(meta_encoder: str = "conv") -> nn.Module:
    torch.manual_seed(1)
    names = {"backbone": "resnet8", "schedule": "rectified", "meta_encoder": meta_encoder}
    return build_flow_student(num_classes=4, time_scale=1.0, **names, **STATISTICS)


def flow_objective(student: nn.Module, teacher: nn.Module, **changes: object) -> FlowMatching:
    options = {"num_steps": 4, "weight": 0.5, "label_smoothing": 0.0}
    return FlowMatching(student, FrozenTeacher(teacher), METRIC, **{**options, **changes})  # type: ignore[arg-type]


def test_flow_matching_is_the_mean_over_the_steps_of_both_terms() -> None:
    student, teacher, batch = make_student(), make_classifier(), make_batch()
    loss = flow_objective(student.eval(), teacher)(batch)
    target = teacher.eval()(batch.images)
    steps = student.step_logits(batch.images, 4)  # type: ignore[operator]
    expected = 0.5 / 4 * sum(METRIC(s, target) + functional.cross_entropy(s, batch.labels) for s in steps)
    torch.testing.assert_close(loss.total, expected)
    torch.testing.assert_close(loss.logits, sum(steps) / 4)
    torch.testing.assert_close(loss.total, 0.5 * (loss.parts["transfer"] + loss.parts["cross_entropy"]))


def test_metric_distillation_adds_the_weighted_transfer_to_the_cross_entropy() -> None:
    student, teacher, batch = make_classifier(1).eval(), make_classifier(), make_batch()
    loss = MetricDistillation(student, FrozenTeacher(teacher), METRIC, weight=3.0, label_smoothing=0.1)(batch)
    logits = student(batch.images)
    expected = functional.cross_entropy(logits, batch.labels, label_smoothing=0.1)
    torch.testing.assert_close(loss.total, expected + 3 * METRIC(logits, teacher.eval()(batch.images)))


def test_a_teacher_stays_bit_identical_through_training() -> None:
    teacher = make_classifier()
    before = copy.deepcopy(teacher.state_dict())
    objective = flow_objective(make_student(), teacher)
    objective.teacher.train()
    sgd = torch.optim.SGD(objective.network.parameters(), lr=0.1)
    for _ in range(2):
        objective.network.train()
        torch.autograd.backward(objective(make_batch()).total)
        sgd.step()
    assert not teacher.training
    assert all(p.grad is None and not p.requires_grad for p in teacher.parameters())
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())


def test_the_chain_never_sees_the_teacher() -> None:
    """With another teacher the loss changes and the predictions do not."""
    student, batch = make_student().eval(), make_batch()
    one, other = (flow_objective(student, make_classifier(seed))(batch) for seed in (0, 5))
    assert torch.equal(one.logits, other.logits)
    assert not torch.equal(one.total, other.total)


def test_a_students_state_holds_nothing_of_the_teacher() -> None:
    objective = flow_objective(make_student(), make_classifier())
    assert not any("teacher" in name for name in objective.network.state_dict())


@pytest.mark.parametrize("meta_encoder", ["conv", "mlp"])
@pytest.mark.parametrize("loss", ["kd", "dist"])
def test_fm_kt_overfits_a_small_batch(meta_encoder: str, loss: str) -> None:
    teacher, batch = make_classifier(), make_batch()
    sgd = torch.optim.SGD(teacher.parameters(), lr=0.05, momentum=0.9)
    supervised = Supervised(teacher, label_smoothing=0.0)
    for _ in range(30):
        _step(supervised, sgd, batch)
    student = make_student(meta_encoder)
    metric = build_metric(loss, LOSS_SETTINGS)
    objective = build_objective("fm_kt", student, teacher, metric, num_steps=4, weight=1.0, label_smoothing=0.0)
    sgd = torch.optim.SGD(student.parameters(), lr=0.02, momentum=0.9)
    first = _step(objective, sgd, batch)
    for _ in range(60):
        last = _step(objective, sgd, batch)
    student.train()
    assert (objective(batch).logits.argmax(dim=1) == batch.labels).all()
    assert last < 0.1 * first


def _step(objective: object, sgd: torch.optim.SGD, batch: Batch) -> float:
    objective.network.train()  # type: ignore[attr-defined]
    loss: Tensor = objective(batch).total  # type: ignore[operator]
    sgd.zero_grad()
    torch.autograd.backward(loss)
    sgd.step()
    return loss.item()


@pytest.mark.parametrize("method", ["fm_kt", "metric"])
def test_a_method_that_needs_a_teacher_says_so(method: str) -> None:
    student = make_student() if method == "fm_kt" else make_classifier()
    with pytest.raises(UserError, match=f"'{method}' needs a teacher; run train_teacher"):
        build_objective(method, student, None, METRIC, num_steps=1, weight=1.0, label_smoothing=0.0)


def test_the_method_none_learns_from_labels_alone() -> None:
    student, batch = make_classifier().eval(), make_batch()
    objective = build_objective("none", student, None, METRIC, num_steps=1, weight=1.0, label_smoothing=0.0)
    torch.testing.assert_close(objective(batch).total, functional.cross_entropy(student(batch.images), batch.labels))
