"""Objectives: their formulas, and that a teacher is only ever listened to."""

import copy
import itertools
from collections.abc import Iterable
from typing import Any

import pytest
import torch
from pipeline.distillation.build import build_objective
from pipeline.distillation.network_specs import adapter_spec, build_student, student_spec
from torch import Tensor, nn
from torch.nn import functional

from models.classifier import Classifier
from models.meta_encoders import META_ENCODERS
from models.schedules import SCHEDULES
from pipeline.core.errors import UserError
from pipeline.data.augmentation import Batch
from pipeline.data.dataset import DataInfo
from pipeline.distillation.methods import LOSSES_OF, METHODS
from pipeline.distillation.teacher_loss import FrozenTeacher, StepSampler, TeacherLoss, paired
from pipeline.networks.saved import build_network
from pipeline.params.loading import load_params
from pipeline.training.objective import Objective, Supervised
from tests.helpers import ROOT

INFO = DataInfo(("a", "b", "c", "d"), (8, 8), (0.5,) * 3, (0.25,) * 3, "none", "packed")
DEFAULTS = load_params(ROOT / "params.yaml").distill_student.model_dump()
VARIANTS: dict[str, dict[str, Any]] = {
    "fm_kt": {},
    "fm_kt_theta": {},
    "ofm_kt": {},
    "metric": {},
    "metric_meta": {},
    "fm_kt on features": {"method": "fm_kt", "transfer": "features", "loss": "pkd"},
    "metric on features": {"method": "metric", "transfer": "features", "loss": "pkd"},
}


def make_batch(count: int = 8) -> Batch:
    generator = torch.Generator().manual_seed(0)
    return Batch(torch.rand(count, 3, 8, 8, generator=generator), torch.arange(count) % 4)


def make_teacher(seed: int = 0) -> Classifier:
    torch.manual_seed(seed)
    arguments = {"backbone": "resnet8x4", "num_classes": 4, "mean": INFO.mean, "std": INFO.std}
    network = build_network("classifier", arguments)
    assert isinstance(network, Classifier)
    return network


def make_objective(
    method: str = "fm_kt", *, teacher: Classifier | None = None, flow: dict[str, Any] | None = None, **changes: Any
) -> Objective:
    """Return the objective of the default parameters with ``changes``; its weights are the same in every call."""
    settings = DEFAULTS | {"method": method, "backbone": "resnet8", "loss": "kd"} | changes
    settings["flow"] = DEFAULTS["flow"] | {"num_steps": (4,)} | (flow or {})
    settings["losses"] = DEFAULTS["losses"] | {"dkd": DEFAULTS["losses"]["dkd"] | {"warmup_epochs": 0}}
    teacher = teacher or make_teacher()
    torch.manual_seed(1)
    student = build_student(student_spec(settings, INFO), INFO.image_size)
    adapter_network_spec = adapter_spec(settings, INFO, student, teacher)
    adapter = build_network(*adapter_network_spec) if adapter_network_spec else None
    return build_objective(settings, student, adapter, teacher, label_smoothing=0.0)


def variant(name: str, **changes: Any) -> Objective:
    return make_objective(**({"method": name} | VARIANTS[name] | changes))


def kd(student: Tensor, teacher: Tensor) -> Tensor:
    p, log_q = (teacher / 4).softmax(1), (student / 4).log_softmax(1)
    return 16 * (p * (p.log() - log_q)).sum(1).mean()


def mean(values: Iterable[Tensor]) -> Tensor:
    return torch.stack(list(values)).mean(0)


def test_flow_matching_is_the_mean_over_the_steps_of_both_terms() -> None:
    objective, batch, teacher = make_objective(loss_weight=0.5), make_batch(), make_teacher().eval()
    objective.network.eval()
    loss = objective(batch, 0)
    steps = objective.student.step_logits(batch.images, 4)  # type: ignore[operator]
    target = teacher(batch.images)
    expected = 0.5 * mean([kd(s, target) + functional.cross_entropy(s, batch.labels) for s in steps])
    torch.testing.assert_close(loss.total, expected)
    torch.testing.assert_close(loss.logits, mean(steps))
    torch.testing.assert_close(loss.total, 0.5 * (loss.parts["transfer"] + loss.parts["cross_entropy"]))


def test_theta_learns_from_the_flows_mean_which_it_does_not_move() -> None:
    objective, batch = make_objective("fm_kt_theta", theta={"weight": 3.0, "reaches_backbone": True}), make_batch()
    objective.network.eval()
    student, flow = objective.student, objective.adapter
    features = student.features(batch.images)  # type: ignore[operator]
    steps = flow.step_outputs(features, 4)  # type: ignore[union-attr, operator]
    target, logits = make_teacher().eval()(batch.images), student(batch.images)
    flow_part = mean([kd(s, target) + functional.cross_entropy(s, batch.labels) for s in steps])
    head_part = kd(logits, mean(steps)) + functional.cross_entropy(logits, batch.labels)
    loss = objective(batch, 0)
    torch.testing.assert_close(loss.total, flow_part + 3 * head_part)
    loss.parts["transfer"].backward(retain_graph=True)
    assert all(p.grad is None for p in flow.parameters())  # type: ignore[union-attr]


@pytest.mark.parametrize("reaches", [True, False])
def test_whether_theta_reaches_the_backbone_is_a_choice(reaches: bool) -> None:
    objective = make_objective("fm_kt_theta", theta={"weight": 1.0, "reaches_backbone": reaches})
    objective(make_batch(), 0).parts["cross_entropy"].backward()
    gradients = [p.grad is not None for p in objective.student.backbone.parameters()]  # type: ignore[union-attr, operator]
    assert all(gradients) if reaches else not any(gradients)


def test_online_flow_matching_pulls_every_step_to_their_mean_without_a_teacher() -> None:
    objective, batch = make_objective("ofm_kt"), make_batch()
    objective.network.eval()
    steps = objective.student.step_logits(batch.images, 4)  # type: ignore[operator]
    target = mean(steps).detach()
    expected = mean([kd(s, target) + functional.cross_entropy(s, batch.labels) for s in steps])
    torch.testing.assert_close(objective(batch, 0).total, expected)


@pytest.mark.parametrize("method", ["metric", "metric_meta"])
def test_metric_distillation_adds_the_weighted_transfer_to_the_cross_entropy(method: str) -> None:
    objective, batch = make_objective(method, loss_weight=3.0), make_batch()
    objective.network.eval()
    logits = objective.student(batch.images)
    expected = functional.cross_entropy(logits, batch.labels) + 3 * kd(logits, make_teacher().eval()(batch.images))
    torch.testing.assert_close(objective(batch, 0).total, expected)


def test_feature_objectives_compare_transformed_maps_of_each_pair() -> None:
    batch, target = make_batch(), make_teacher().eval().feature_maps(make_batch().images)
    for name in ("metric on features", "fm_kt on features"):
        objective = variant(name, loss="mse", loss_weight=2.0, feature_pairs=[(1, 2), (3, 3)])
        objective.network.eval()
        student, (first, second) = objective.student, objective.adapter  # type: ignore[misc]
        if name.startswith("metric"):
            own = student.feature_maps(batch.images)  # type: ignore[operator]
            estimates = [[own[0]], [own[2]]]
        else:
            estimates = [path.estimates for path in student.paths(batch.images, 4)]  # type: ignore[operator]
        outputs = [(first(x), target[1]) for x in estimates[0]] + [(second(x), target[2]) for x in estimates[1]]
        costs = [(own - theirs).square().mean() for own, theirs in outputs]
        logits = objective.predict(batch.images)
        expected = functional.cross_entropy(logits, batch.labels) + 2 * mean(costs)
        torch.testing.assert_close(objective(batch, 0).total, expected)


def test_the_method_none_learns_from_labels_alone() -> None:
    objective, batch = make_objective("none"), make_batch()
    objective.network.eval()
    expected = functional.cross_entropy(objective.student(batch.images), batch.labels)
    torch.testing.assert_close(objective(batch, 0).total, expected)


@pytest.mark.parametrize("name", VARIANTS)
def test_a_teacher_stays_bit_identical_through_training(name: str) -> None:
    teacher = make_teacher()
    before = copy.deepcopy(teacher.state_dict())
    objective = variant(name, teacher=teacher)
    for _ in train(objective, make_batch(), steps=2, learning_rate=0.1):
        if METHODS[VARIANTS[name].get("method", name)].needs_teacher:
            assert not teacher.training
            assert all(p.grad is None and not p.requires_grad for p in teacher.parameters())
    assert all(torch.equal(value, before[key]) for key, value in teacher.state_dict().items())
    assert not any("teacher" in key for key in objective.network.state_dict())


@pytest.mark.parametrize("name", VARIANTS)
def test_what_the_student_computes_never_depends_on_the_teacher(name: str) -> None:
    """With another teacher, or its rows permuted, the cost changes and the predictions do not."""
    batch, losses = make_batch(), []
    for flow in ({}, {"pair_ratio": 0.0}):
        for seed in (0, 5):
            objective = variant(name, teacher=make_teacher(seed), flow=flow)
            objective.network.eval()
            torch.manual_seed(3)
            losses.append(objective(batch, 0))
    assert all(torch.equal(losses[0].logits, other.logits) for other in losses[1:])
    taught = METHODS[VARIANTS[name].get("method", name)].needs_teacher
    assert (losses[0].total != losses[1].total) == taught
    assert (losses[0].total != losses[2].total) == ("fm_kt" in name and taught)


def test_no_gradient_path_leads_through_the_teacher() -> None:
    """The gradient of the images equals that of the same cost with the teacher's logits as plain numbers."""
    teacher, batch = make_teacher(), make_batch()
    targets = FrozenTeacher(teacher)(batch.images.requires_grad_())
    assert not any(target.requires_grad for target in targets)
    objective = make_objective(teacher=teacher)
    objective.network.eval()
    objective(batch, 0).total.backward()
    steps = objective.student.step_logits(batch.images, 4)  # type: ignore[operator]
    by_hand = mean([kd(s, targets[0]) + functional.cross_entropy(s, batch.labels) for s in steps])
    torch.testing.assert_close(batch.images.grad, torch.autograd.grad(by_hand, batch.images)[0])


@pytest.mark.parametrize(("ratio", "kept"), [(1.0, 10), (0.5, 5), (0.37, 3), (0.0, 0)])
def test_pair_decoupling_permutes_the_rows_from_its_share_on(ratio: float, kept: int) -> None:
    torch.manual_seed(0)
    rows = [paired([torch.arange(10)], ratio)[0].tolist() for _ in range(20)]
    assert all(row[:kept] == list(range(kept)) and sorted(row) == list(range(10)) for row in rows)
    assert (len(set(map(tuple, rows))) > 1) == (kept < 9)


def test_pair_decoupling_leaves_the_teachers_tensor_unchanged() -> None:
    target = torch.arange(12.0).reshape(6, 2)
    before = target.clone()
    seen: list[Tensor] = []

    def metric(student: Tensor, teacher: Tensor, **_: object) -> Tensor:
        seen.append(teacher)
        return (student - teacher).sum()

    class Fixed(FrozenTeacher):
        def forward(self, images: Tensor) -> list[Tensor]:  # noqa: ARG002
            return [target]

    torch.manual_seed(0)
    teaching = TeacherLoss(Fixed(make_teacher()), metric, pair_ratio=0.5)
    teaching.cost([torch.zeros(6, 2)], make_batch(6), 0)
    assert torch.equal(target, before)
    assert torch.equal(seen[0][:3], before[:3])
    assert not torch.equal(seen[0], before)
    assert torch.equal(seen[0].sort(0).values, before)


def test_steps_are_drawn_from_those_that_the_warm_up_allows() -> None:
    plan = StepSampler((1, 2, 4, 8, 16), 10)
    authors = {
        e: [n for n in (1, 2, 4, 8, 16) if n <= (e + 10) // 10] for e in (0, 9, 10, 29, 30, 69, 70, 149, 150, 999)
    }
    assert {e: plan.allowed(e) for e in authors} == authors
    torch.manual_seed(0)
    assert {plan.draw(999) for _ in range(200)} == {1, 2, 4, 8, 16}
    assert {plan.draw(15) for _ in range(50)} == {1, 2}
    assert plan.largest == 16
    assert StepSampler((4, 8), 10).allowed(0) == [4], "where the cap allows none, the smallest"
    state = torch.get_rng_state()
    assert StepSampler((4,)).draw(0) == 4
    assert torch.equal(torch.get_rng_state(), state), "one number needs no draw"


COMBINATIONS = [
    *itertools.product(["logits"], sorted(SCHEDULES), sorted(META_ENCODERS), LOSSES_OF["logits"]),
    *itertools.product(["features"], sorted(SCHEDULES), ["conv"], LOSSES_OF["features"]),
]


LASTING = 5
"""Steps in a row that must be good."""


@pytest.mark.parametrize(("transfer", "schedule", "meta_encoder", "loss"), COMBINATIONS)
def test_fm_kt_overfits_a_small_batch(
    transfer: str, schedule: str, meta_encoder: str, loss: str, trained_teacher: Classifier
) -> None:
    flow = {"schedule": schedule, "meta_encoder": meta_encoder}
    objective = make_objective(teacher=trained_teacher, transfer=transfer, loss=loss, flow=flow)
    learning_rate = 0.005 if loss == "mse" else 0.02
    costs = train(objective, make_batch(), steps=60, learning_rate=learning_rate)
    first = next(costs)
    good = itertools.accumulate(costs, lambda run, cost: run + 1 if cost < 0.4 * first else 0, initial=0)
    assert any(run >= LASTING and fits(objective) for run in good)


def fits(objective: Objective) -> bool:
    """Return whether ``objective`` sees each label of the batch that it is trained on."""
    with torch.no_grad():
        return bool((objective(make_batch(), 0).logits.argmax(dim=1) == make_batch().labels).all())


@pytest.fixture(scope="module")
def trained_teacher() -> Classifier:
    teacher = make_teacher()
    list(train(Supervised(teacher, label_smoothing=0.0), make_batch(), steps=30, learning_rate=0.05))
    return teacher.eval()


def train(objective: Objective, batch: Batch, *, steps: int, learning_rate: float) -> Any:
    """Yield the cost of each step of training on one batch."""
    sgd = torch.optim.SGD(objective.network.parameters(), lr=learning_rate, momentum=0.9)
    for _ in range(steps):
        objective.network.train()
        loss = objective(batch, 0).total
        sgd.zero_grad()
        torch.autograd.backward(loss)
        sgd.step()
        yield loss.item()


@pytest.mark.parametrize("name", sorted({v.get("method", n) for n, v in VARIANTS.items()} - {"ofm_kt"}))
def test_a_method_that_needs_a_teacher_says_so(name: str) -> None:
    settings = DEFAULTS | {"method": name}
    with pytest.raises(UserError, match=f"'{name}' needs a teacher; run train_teacher"):
        build_objective(settings, nn.Identity(), None, None, label_smoothing=0.0)
