"""Objectives: their formulas, and that a teacher is only ever listened to."""

import copy
import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight
from torch import Tensor
from torch.nn import functional

from models.classifier import Classifier
from models.meta_encoders import META_ENCODERS
from models.schedules import SCHEDULES
from models.step_sampler import StepSampler
from models.transfer_losses import paired
from pipeline.core.errors import UserError
from pipeline.data.batch import Batch, Targets
from pipeline.distillation.criteria import CRITERIA
from pipeline.distillation.criterion import Criterion
from pipeline.distillation.frozen_teacher import FrozenTeacher
from pipeline.distillation.method import Networks, build_student
from pipeline.distillation.methods import METHODS
from pipeline.distillation.settings import DistillStudent, Layers, LogitLoss, Theta
from pipeline.distillation.teacher_loss import TeacherLoss
from pipeline.networks.saved import build_network
from pipeline.tasks.classification.targets import ClassTargets
from pipeline.tasks.classification.training import CrossEntropy
from pipeline.training.objective import Objective, Supervised
from tests.toy_objectives import BESIDE, INFO, LABELS, TASK, VARIANTS, make_batch, make_objective, make_teacher, variant


def kd(student: Tensor, teacher: Tensor) -> Tensor:
    p, log_q = (teacher / 4).softmax(1), (student / 4).log_softmax(1)
    return 16 * (p * (p.log() - log_q)).sum(1).mean()


def mean(values: Iterable[Tensor]) -> Tensor:
    return torch.stack(list(values)).mean(0)


def test_flow_matching_is_the_mean_over_the_steps_of_both_terms() -> None:
    objective, batch, teacher = make_objective(loss_weight=0.5), make_batch(), make_teacher().eval()
    objective.network.eval()
    loss = objective(batch)
    steps = objective.student.step_logits(batch.images, 4)
    target = teacher(batch.images)
    expected = 0.5 * mean([kd(s, target) + functional.cross_entropy(s, LABELS) for s in steps])
    torch.testing.assert_close(loss.total, expected)
    torch.testing.assert_close(loss.predicted, mean(steps))
    torch.testing.assert_close(loss.total, 0.5 * (loss.parts["transfer"] + loss.parts["cross_entropy"]))


def test_theta_learns_from_the_flows_mean_which_it_does_not_move() -> None:
    objective, batch = make_objective("fm_kt_theta", theta=Theta(weight=3.0)), make_batch()
    objective.network.eval()
    student, flow = objective.network
    features = student.features(batch.images)
    steps = flow.step_outputs(features, 4)
    target, logits = make_teacher().eval()(batch.images), student(batch.images)
    flow_part = mean([kd(s, target) + functional.cross_entropy(s, LABELS) for s in steps])
    head_part = kd(logits, mean(steps)) + functional.cross_entropy(logits, LABELS)
    loss = objective(batch)
    torch.testing.assert_close(loss.total, flow_part + 3 * head_part)
    loss.parts["transfer"].backward(retain_graph=True)
    assert all(p.grad is None for p in flow.parameters())


@pytest.mark.parametrize("reaches", [True, False])
def test_whether_theta_reaches_the_backbone_is_a_choice(reaches: bool) -> None:
    objective = make_objective("fm_kt_theta", theta=Theta(reaches_backbone=reaches))
    objective(make_batch()).parts["cross_entropy"].backward()
    gradients = [p.grad is not None for p in objective.student.backbone.parameters()]
    assert all(gradients) if reaches else not any(gradients)


def test_online_flow_matching_pulls_every_step_to_their_mean_without_a_teacher() -> None:
    objective, batch = make_objective("ofm_kt"), make_batch()
    objective.network.eval()
    steps = objective.student.step_logits(batch.images, 4)
    target = mean(steps).detach()
    expected = mean([kd(s, target) + functional.cross_entropy(s, LABELS) for s in steps])
    torch.testing.assert_close(objective(batch).total, expected)


@pytest.mark.parametrize("method", ["metric", "metric_meta"])
def test_metric_distillation_adds_the_weighted_transfer_to_the_cross_entropy(method: str) -> None:
    objective, batch = make_objective(method, loss_weight=3.0), make_batch()
    objective.network.eval()
    logits = objective.student(batch.images)
    expected = functional.cross_entropy(logits, LABELS) + 3 * kd(logits, make_teacher().eval()(batch.images))
    torch.testing.assert_close(objective(batch).total, expected)


def test_feature_objectives_compare_transformed_maps_of_each_pair() -> None:
    batch, target = make_batch(), make_teacher().eval().feature_maps(make_batch().images)
    for name in ("metric on features", "fm_kt on features"):
        objective = variant(name, loss="mse", loss_weight=2.0, feature_pairs=[(1, 2), (3, 3)])
        objective.network.eval()
        student, (first, second) = objective.network
        if name.startswith("metric"):
            own = student.feature_maps(batch.images)
            estimates = [[own[0]], [own[2]]]
        else:
            estimates = [path.estimates for path in student.trajectories(batch.images, 4)]
        outputs = [(first(x), target[1]) for x in estimates[0]] + [(second(x), target[2]) for x in estimates[1]]
        costs = [(own - theirs).square().mean() for own, theirs in outputs]
        logits = objective.predict(batch.images)
        expected = functional.cross_entropy(logits, LABELS) + 2 * mean(costs)
        torch.testing.assert_close(objective(batch).total, expected)


def test_logits_beside_features_cost_what_the_teacher_says_of_them() -> None:
    """Of a plain head its logits; of a flow at the end each of its steps, whose mean answers."""
    batch, teacher = make_batch(), make_teacher().eval()
    target, wanted = teacher.feature_maps(batch.images)[2], teacher(batch.images)
    for name in ("metric on features", "fm_kt on features beside logits", "fm_kt on features and logits"):
        objective = variant(name, loss="mse", loss_weight=2.0, feature_pairs=[(3, 3)], **BESIDE)
        objective.network.eval()
        student, (transform,) = objective.network
        if name.startswith("metric"):
            outputs = [transform(student.feature_maps(batch.images)[2])]
        else:
            outputs = [transform(x) for x in student.trajectories(batch.images, 4)[0].estimates]
        answers = [objective.predict(batch.images)]
        if name.endswith("and logits"):
            answers = student.step_predictions(batch.images, 4)
        loss = objective(batch)
        expected = mean([functional.cross_entropy(x, LABELS) + 0.5 * kd(x, wanted) for x in answers])
        expected += 2 * mean([(x - target).square().mean() for x in outputs])
        torch.testing.assert_close(loss.total, expected)
        torch.testing.assert_close(loss.predicted, mean(answers))
        assert set(loss.parts) == {"cross_entropy", "transfer", "logit_transfer"}


def test_decoupled_pairs_are_those_of_flows_and_a_plain_head_keeps_each_images_own_answer() -> None:
    batch = make_batch()
    for name, changes in (("fm_kt on features beside logits", False), ("fm_kt on features and logits", True)):
        found = []
        for ratio in (1.0, 0.0):
            objective = variant(name, flow={"pair_ratio": ratio})
            objective.network.eval()
            torch.manual_seed(3)
            found.append(objective(batch).parts)
        assert found[0]["transfer"] != found[1]["transfer"]
        assert (found[0]["logit_transfer"] != found[1]["logit_transfer"]) == changes


def test_the_method_none_learns_from_labels_alone() -> None:
    objective, batch = make_objective("none"), make_batch()
    objective.network.eval()
    expected = functional.cross_entropy(objective.student(batch.images), LABELS)
    torch.testing.assert_close(objective(batch).total, expected)


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
            losses.append(objective(batch))
    assert all(torch.equal(losses[0].predicted, other.predicted) for other in losses[1:])
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
    objective(batch).total.backward()
    steps = objective.student.step_logits(batch.images, 4)
    by_hand = mean([kd(s, targets[0]) + functional.cross_entropy(s, LABELS) for s in steps])
    torch.testing.assert_close(batch.images.grad, torch.autograd.grad(by_hand, batch.images)[0])


@pytest.mark.parametrize(("ratio", "kept"), [(1.0, 10), (0.5, 5), (0.37, 3), (0.0, 0)])
def test_pair_decoupling_permutes_the_rows_from_its_share_on(ratio: float, kept: int) -> None:
    torch.manual_seed(0)
    rows = [paired([torch.arange(10.0)], ratio)[0].tolist() for _ in range(20)]
    assert all(row[:kept] == list(range(kept)) and sorted(row) == list(range(10)) for row in rows)
    assert (len(set(map(tuple, rows))) > 1) == (kept < 9)


def test_pair_decoupling_leaves_the_teachers_tensor_unchanged() -> None:
    target = torch.arange(12.0).reshape(6, 2)
    before = target.clone()
    seen: list[Tensor] = []

    class Noting(Criterion):
        def __call__(self, student: Tensor, teacher: Tensor, targets: Targets) -> Tensor:
            seen.append(teacher)
            return super().__call__(student, teacher, targets)

    class Fixed(FrozenTeacher):
        def forward(self, images: Tensor) -> list[Tensor]:  # noqa: ARG002
            return [target]

    torch.manual_seed(0)
    TeacherLoss(Fixed(make_teacher()), Noting("mse"), pair_ratio=0.5)([torch.zeros(6, 2)], make_batch(6))
    assert torch.equal(target, before)
    assert torch.equal(seen[0][:3], before[:3])
    assert not torch.equal(seen[0], before)
    assert torch.equal(seen[0].sort(0).values, before)


def test_steps_are_drawn_from_those_that_the_warm_up_allows() -> None:
    sampler = StepSampler((1, 2, 4, 8, 16), 10)

    def allowed(epoch: int, sampler: StepSampler = sampler) -> list[int]:
        sampler.set_epoch(epoch)
        return sampler.allowed()

    authors = {
        e: [n for n in (1, 2, 4, 8, 16) if n <= (e + 10) // 10] for e in (0, 9, 10, 29, 30, 69, 70, 149, 150, 999)
    }
    assert {e: allowed(e) for e in authors} == authors
    torch.manual_seed(0)
    assert {sampler.draw() for _ in range(200)} == {1, 2, 4, 8, 16}
    sampler.set_epoch(15)
    assert {sampler.draw() for _ in range(50)} == {1, 2}
    assert sampler.largest == 16
    assert allowed(0, StepSampler((4, 8), 10)) == [4], "where the cap allows none, the smallest"
    state = torch.get_rng_state()
    assert StepSampler((4,)).draw() == 4
    assert torch.equal(torch.get_rng_state(), state), "one number needs no draw"


def test_the_epoch_reaches_the_criterion_of_the_logits_beside_features() -> None:
    own = {"logit_loss": LogitLoss(weight=1.0, criterion="dkd")}
    objective, found = variant("fm_kt on features beside logits", dkd_warmup_epochs=20, **own), []
    objective.network.eval()
    for epoch in (0, 19):
        objective.set_epoch(epoch)
        found.append(objective(make_batch()).parts["logit_transfer"].item())
    assert found[1] == pytest.approx(20 * found[0])


@pytest.mark.parametrize("name", ["fm_kt", "fm_kt_theta", "ofm_kt", "metric", "metric_meta"])
def test_the_epoch_reaches_the_warm_up_of_the_criterion_and_of_the_steps(name: str) -> None:
    flow = {"num_steps": (2, 4), "num_steps_warmup": 5}
    objective, batch, found = make_objective(name, loss="dkd", dkd_warmup_epochs=20, flow=flow), make_batch(), []
    objective.network.eval()
    for epoch in (0, 19):
        torch.manual_seed(0)
        objective.set_epoch(epoch)
        found.append(objective(batch).parts["transfer"].item())
    if "kt" in name:
        assert objective.loss.steps.allowed() == [2, 4]
        objective.set_epoch(0)
        assert objective.loss.steps.allowed() == [2]
    else:
        assert found[1] == pytest.approx(20 * found[0])
    assert found[0] != found[1]


def test_cross_entropy_serves_labels_shares_steps_and_smoothing() -> None:
    torch.manual_seed(0)
    logits, batch = torch.randn(3, 8, 4), make_batch()
    shares = torch.rand(8, 4).softmax(dim=1)
    mixed = Batch(batch.images, ClassTargets(shares.argmax(dim=1), shares))
    for smoothing in (0.0, 0.1):
        supervision = CrossEntropy(INFO.class_names, smoothing)
        for targets, given in ((functional.one_hot(LABELS, 4).float(), batch), (shares, mixed)):
            wanted = (1 - smoothing) * targets + smoothing / 4
            costs = [-(wanted * step.log_softmax(dim=1)).sum(dim=1).mean() for step in logits]
            torch.testing.assert_close(supervision.loss(logits, given), mean(costs))
            torch.testing.assert_close(supervision.loss(logits[0], given), costs[0])


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_balanced_classes_weigh_as_scikit_learn_and_pytorch_say(smoothing: float) -> None:
    torch.manual_seed(0)
    all_labels = np.repeat(np.arange(4), [50, 5, 20, 1])
    wanted = torch.from_numpy(compute_class_weight("balanced", classes=np.arange(4), y=all_labels)).float()
    supervision = CrossEntropy(INFO.class_names, smoothing, np.bincount(all_labels).tolist(), balanced=True)
    logits, batch = torch.randn(3, 8, 4), make_batch()
    shares = torch.rand(8, 4).softmax(dim=1)
    mixed = Batch(batch.images, ClassTargets(shares.argmax(dim=1), shares))
    for targets, given in ((LABELS, batch), (shares, mixed)):
        costs = [functional.cross_entropy(step, targets, wanted, label_smoothing=smoothing) for step in logits]
        torch.testing.assert_close(supervision.loss(logits[0], given), costs[0])
        torch.testing.assert_close(supervision.loss(logits, given), mean(costs))


def losses_of(transfer: str) -> list[str]:
    return sorted(name for name, entry in CRITERIA.items() if transfer in entry.applies_to)


def combinations(transfer: str, meta_encoders: list[str]) -> Iterator[Any]:
    """Yield each schedule with each meta-encoder and loss; slow are those whose three pairs stand in others too."""
    schedules = sorted(SCHEDULES)
    for (i, meta_encoder), (j, loss) in itertools.product(enumerate(meta_encoders), enumerate(losses_of(transfer))):
        for k, schedule in enumerate(schedules):
            marks = [] if (i + j) % len(schedules) == k else pytest.mark.slow
            yield pytest.param(transfer, schedule, meta_encoder, loss, marks=marks)


COMBINATIONS = [*combinations("logits", sorted(META_ENCODERS)), *combinations("features", ["conv"])]


LASTING = 5
"""Steps in a row that must be good."""
WIDTHS = {"logits": "auto", "features": "full"}
"""Of the meta-encoders; those of two flows that share a budget learn features by mse too, but in more steps."""


@pytest.mark.parametrize(("transfer", "schedule", "meta_encoder", "loss"), COMBINATIONS)
def test_fm_kt_overfits_a_small_batch(
    transfer: str, schedule: str, meta_encoder: str, loss: str, trained_teacher: Classifier
) -> None:
    flow = {"schedule": schedule, "meta_encoder": meta_encoder, "num_steps": (2,), "width": WIDTHS[transfer]}
    objective = make_objective(teacher=trained_teacher, transfer=transfer, loss=loss, flow=flow)
    learning_rate = 0.005 if loss == "mse" or meta_encoder == "transformer_shifted" else 0.02
    costs = train(objective, make_batch(), steps=60, learning_rate=learning_rate)
    first = next(costs)
    good = itertools.accumulate(costs, lambda run, cost: run + 1 if cost < 0.4 * first else 0, initial=0)
    assert any(run >= LASTING and fits(objective) for run in good)


def fits(objective: Objective) -> bool:
    """Return whether ``objective`` sees each label of the batch that it is trained on."""
    with torch.no_grad():
        return bool((objective(make_batch()).predicted.argmax(dim=1) == LABELS).all())


@pytest.fixture(scope="module")
def trained_teacher() -> Classifier:
    teacher = make_teacher()
    list(
        train(
            Supervised(teacher, supervision=CrossEntropy(INFO.class_names, 0.0)),
            make_batch(),
            steps=30,
            learning_rate=0.05,
        )
    )
    return teacher.eval()


def train(objective: Objective, batch: Batch, *, steps: int, learning_rate: float) -> Any:
    """Yield the cost of each step of training on one batch."""
    sgd = torch.optim.SGD(objective.network.parameters(), lr=learning_rate, momentum=0.9)
    for _ in range(steps):
        objective.network.train()
        loss = objective(batch).total
        sgd.zero_grad()
        torch.autograd.backward(loss)
        sgd.step()
        yield loss.item()


@pytest.mark.parametrize("name", sorted(name for name, entry in METHODS.items() if entry.needs_teacher))
def test_a_method_that_needs_a_teacher_says_so(name: str) -> None:
    settings, entry = DistillStudent(method=name, backbone="resnet8"), METHODS[name].load()
    student = build_student(entry.student(settings, INFO, TASK), INFO.image_size)
    spec = entry.adapter(settings, INFO, TASK, student, None)
    networks = Networks(student, build_network(spec) if spec else None, None)
    with pytest.raises(UserError, match=f"'{name}' needs a teacher; run train_teacher"):
        entry.objective(settings, networks, CrossEntropy(INFO.class_names, 0.0))


def test_each_of_several_heads_learns_by_itself_and_their_mean_deploys() -> None:
    objective, batch = make_objective("metric_meta", loss="kd", layers=Layers(num_heads=3)), make_batch()
    student = objective.student
    logits = torch.stack([head(student.features(batch.images)) for head in student.head.heads])
    torch.testing.assert_close(student(batch.images), logits.mean(dim=0))
    found = objective(batch)
    each = [functional.cross_entropy(one, batch.targets.labels) for one in logits]
    torch.testing.assert_close(found.parts["cross_entropy"], torch.stack(each).mean())
    torch.testing.assert_close(found.predicted, logits.mean(dim=0))
