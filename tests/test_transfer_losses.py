"""The losses of the library against the method's formulas, written out here in float64; and what they refuse."""

import functools
import inspect
import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from models.deploy import fold
from models.flow import FlowTransfer, build_flow, build_logit_flow, start_at_rest
from models.flow_paths.rectified import RectifiedFlow
from models.layers.shape_transform import LogitTransform
from models.losses import LOGIT_LOSSES, dkd_loss, kd_loss, mse_loss, pkd_loss, step_cross_entropy
from models.meta_encoders import META_ENCODERS, build_meta_encoder
from models.schedules import SCHEDULES
from models.step_sampler import StepSampler
from models.transfer_losses import (
    FeatureTransferLoss,
    FlowTransferLoss,
    HeadTransferLoss,
    OnlineTransferLoss,
    ThetaTransferLoss,
    paired,
)
from pipeline.distillation.criteria import CRITERIA

BATCH, CHANNELS, CLASSES = 6, 4, 5
LABELS = torch.tensor([0, 3, 1, 4, 4, 2])
close = functools.partial(torch.testing.assert_close, rtol=1e-9, atol=1e-12)


@pytest.fixture(autouse=True)
def _in_float64() -> Any:
    """Compute in float64, from a seed."""
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def features() -> Tensor:
    return torch.randn(BATCH, CHANNELS, 5, 3, requires_grad=True)


def teacher_logits() -> Tensor:
    return 2 * torch.randn(BATCH, CLASSES)


def alpha(schedule: str, t: Tensor) -> Tensor:
    if schedule == "vp":
        return torch.exp(-19.9 * (1 - t) ** 2 / 4 - 0.1 * (1 - t) / 2)
    return 0.02 * (100 / 0.02) ** t if schedule == "ve" else t


def sigma(schedule: str, t: Tensor) -> Tensor:
    if schedule == "vp":
        return torch.sqrt(1 - alpha("vp", t) ** 2)
    return torch.ones_like(t) if schedule == "ve" else 1 - t


def weights(schedule: str, time: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return alpha, sigma and their derivatives by autograd; those of ``ve`` are of states scaled to unit weight."""
    t = torch.tensor(min(max(time, 1e-3), 1 - 1e-3) if schedule == "vp" else time, requires_grad=True)
    both = torch.stack([alpha(schedule, t), sigma(schedule, t)])
    if schedule == "ve":
        both = both / both.norm()
    slopes = [torch.autograd.grad(one, t, retain_graph=True)[0] for one in both]
    return both[0].detach(), both[1].detach(), slopes[0], slopes[1]


def embedding(time: float, layers: nn.Sequential) -> Tensor:
    angles = [time / 10_000 ** (2 * j / CHANNELS) for j in range(CHANNELS // 2)]
    first, _, second = layers
    assert isinstance(first, nn.Linear)
    assert isinstance(second, nn.Linear)
    hidden = first.weight @ torch.tensor([*map(math.cos, angles), *map(math.sin, angles)]) + first.bias
    return second.weight @ hidden.clamp(min=0) + second.bias


def meta_encoder(z: Tensor, time: float, flow: FlowTransfer) -> Tensor:
    """Return g(z, t) of the authors' convolutional form."""
    encoder: Any = flow.velocity
    _, first, norm, _, second = encoder.body
    x = z + embedding(time, encoder.time_embedding.project)[:, None, None]
    x = functional.conv2d(x * torch.sigmoid(x), first.weight, padding=1)
    deviations = x - x.mean(dim=(1, 2, 3), keepdim=True)
    x = deviations / torch.sqrt(deviations.square().mean(dim=(1, 2, 3), keepdim=True) + norm.eps)
    x = x * norm.weight[:, None, None] + norm.bias[:, None, None]
    return functional.conv2d(x * torch.sigmoid(x), second.weight, padding=1)


def chain(x_s: Tensor, flow: FlowTransfer, schedule: str, n: int) -> tuple[Tensor, list[Tensor]]:
    """Return Z_N and the estimates of X_T at each of ``n`` steps."""
    z, estimates = weights(schedule, 1.0)[0] * x_s, []
    for i in range(n):
        a, s, da, ds = weights(schedule, 1 - i / n)
        v = meta_encoder(z, 1 - i / n, flow) * (1 if schedule == "rectified" else torch.sqrt(da**2 + ds**2))
        if schedule == "rectified":
            estimates.append(x_s - v)
        else:
            estimates.append((s * (z - a * x_s) + ds * (v - da * x_s)) / (s**2 + ds**2))
        z = z - v / n
    return z, estimates


def classified(x: Tensor, transform: Any) -> Tensor:
    return x.mean(dim=(2, 3)) @ transform.linear.weight.T + transform.linear.bias


def cross_entropy(logits: Tensor) -> Tensor:
    return -(logits.softmax(1)[torch.arange(BATCH), LABELS]).log().mean()


def kl(p: Tensor, q: Tensor) -> Tensor:
    return (p * (p / q).log()).sum(1).mean()


def kd(student: Tensor, teacher: Tensor) -> Tensor:
    return 16 * kl((teacher / 4).softmax(1), (student / 4).softmax(1))


def dkd(student: Tensor, teacher: Tensor) -> Tensor:
    binary, rest = [], []
    for logits in (teacher, student):
        p = (logits / 4).softmax(1)
        own = p[torch.arange(BATCH), LABELS]
        binary.append(torch.stack([own, 1 - own], dim=1))
        others = torch.stack([torch.cat([row[:label], row[label + 1 :]]) for row, label in zip(p, LABELS, strict=True)])
        rest.append(others / others.sum(1, keepdim=True))
    return 16 * (1 * kl(*binary) + 2 * kl(*rest))


def pearson(a: Tensor, b: Tensor) -> Tensor:
    return torch.stack([torch.corrcoef(torch.stack(pair))[0, 1] for pair in zip(a, b, strict=True)]).mean()


def dist(student: Tensor, teacher: Tensor) -> Tensor:
    p, q = student.softmax(1), teacher.softmax(1)
    return 2 * (1 - pearson(p, q)) + 2 * (1 - pearson(p.T, q.T))


BY_HAND: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"kd": kd, "dkd": dkd, "dist": dist}


def mean(values: list[Tensor]) -> Tensor:
    return torch.stack(values).mean(dim=0)


@pytest.mark.parametrize("loss", BY_HAND)
@pytest.mark.parametrize("n", [1, 4])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_flow_transfer_is_the_methods_formula(schedule: str, n: int, loss: str) -> None:
    criterion = FlowTransferLoss(
        channels=CHANNELS, num_classes=CLASSES, schedule=schedule, num_steps=n, loss=loss, weight=0.7
    )
    x, target = features(), teacher_logits()
    found = criterion(x, target, LABELS)
    steps = [classified(one, criterion.flow.transform) for one in chain(x, criterion.flow, schedule, n)[1]]
    expected = 0.7 / n * sum(BY_HAND[loss](step, target) + cross_entropy(step) for step in steps)
    assert torch.is_tensor(expected)
    close(found.total, expected)
    close(found.total, 0.7 * (found.parts["transfer"] + found.parts["labels"]))
    close(found.step_logits, torch.stack(steps))
    close(found.logits, mean(steps))
    gradients = (torch.autograd.grad(total, x, retain_graph=True)[0] for total in (found.total, expected))
    torch.testing.assert_close(*gradients, rtol=1e-7, atol=1e-9)  # the correlation's constant rows have a floor of 1e-6


@pytest.mark.parametrize(("ratio", "kept"), [(0.5, 3), (0.0, 0)])
def test_pairs_are_decoupled_from_the_share_on_that_keeps_its_own(ratio: float, kept: int) -> None:
    criterion = FlowTransferLoss(channels=CHANNELS, num_classes=CLASSES, num_steps=2, loss="kd", pair_ratio=ratio)
    x, target = features(), teacher_logits()
    steps = [classified(one, criterion.flow.transform) for one in chain(x, criterion.flow, "rectified", 2)[1]]
    orders = [[*range(kept), *order] for order in itertools.permutations(range(kept, BATCH))]
    allowed = torch.stack([mean([kd(step, target[order]) for step in steps]) for order in orders])
    found = [criterion(x, target, LABELS).parts["transfer"] for _ in range(8)]
    assert all((allowed - one).abs().min() < 1e-12 for one in found)
    assert len({round(one.item(), 9) for one in found}) > 1


def test_online_transfer_learns_from_the_mean_of_its_steps_which_it_does_not_move() -> None:
    smoothed = functools.partial(step_cross_entropy, label_smoothing=0.1)
    criterion = OnlineTransferLoss(channels=CHANNELS, num_classes=CLASSES, loss="kd", label_loss=smoothed, weight=0.5)
    x = features()
    found = criterion(x, LABELS)
    steps = [classified(one, criterion.flow.transform) for one in chain(x, criterion.flow, "rectified", 4)[1]]
    wanted = 0.9 * functional.one_hot(LABELS, CLASSES) + 0.1 / CLASSES
    labels = mean([-(wanted * step.softmax(1).log()).sum(1).mean() for step in steps])
    expected = 0.5 * (labels + mean([kd(step, mean(steps).detach()) for step in steps]))
    close(found.total, expected)
    close(*(torch.autograd.grad(total, x, retain_graph=True)[0] for total in (found.total, expected)))


@pytest.mark.parametrize("target", ["flow", "teacher", "both"])
def test_theta_learns_from_flow_teacher_or_both(target: Any) -> None:
    head = LogitTransform(CHANNELS, CLASSES)
    criterion = ThetaTransferLoss(
        head, target=target, theta_weight=3.0, channels=CHANNELS, num_classes=CLASSES, loss="kd", weight=0.5
    )
    x, teacher = features(), teacher_logits()
    found = criterion(x, teacher, LABELS)
    steps = [classified(one, criterion.flow.transform) for one in chain(x, criterion.flow, "rectified", 4)[1]]
    logits, averaged = classified(x, head), mean(steps).detach()
    targets = {"flow": [averaged], "teacher": [teacher], "both": [averaged, teacher]}[target]
    transfer = mean([kd(logits, one) for one in targets])
    flow = mean([kd(step, teacher) + cross_entropy(step) for step in steps])
    expected = 0.5 * flow + 3 * (transfer + cross_entropy(logits))
    close(found.total, expected)
    close(found.logits, logits)
    close(*(torch.autograd.grad(total, x, retain_graph=True)[0] for total in (found.total, expected)))
    assert set(found.parts) == {"labels", "transfer", "flow_labels", "flow_transfer"}


def test_the_head_leaves_the_backbone_alone_where_it_is_told_to() -> None:
    head = LogitTransform(CHANNELS, CLASSES)
    criterion = ThetaTransferLoss(head, reaches_backbone=False, channels=CHANNELS, num_classes=CLASSES, weight=0.0)
    x = features()
    total = criterion(x, teacher_logits(), LABELS).total
    by_features, by_head = torch.autograd.grad(total, [x, head.linear.weight])
    assert by_features.abs().max() == 0
    assert by_head.abs().max() > 0


@pytest.mark.parametrize("width", [None, 2])
def test_a_tied_flow_at_rest_answers_as_its_head_at_every_step(width: int | None) -> None:
    criterion = ThetaTransferLoss(
        None, target="teacher", channels=CHANNELS, num_classes=CLASSES, loss="kd", width=width
    )
    start_at_rest(criterion.flow)
    x, teacher = features(), teacher_logits()
    found = criterion(x, teacher, LABELS)
    plain = classified(x, criterion.flow.transform)
    close(found.step_logits, plain.expand(4, BATCH, CLASSES))
    close(found.total, 2 * (kd(plain, teacher) + cross_entropy(plain)))
    names = [name for name, _ in criterion.named_parameters()]
    assert not any(name.startswith("head.") for name in names), "one classifier"


def test_the_flows_weight_goes_to_its_end_over_the_last_third() -> None:
    criterion = ThetaTransferLoss(
        None, channels=CHANNELS, num_classes=CLASSES, weight=2.0, weight_end=0.5, epochs=6, loss="kd"
    )
    weights = []
    for epoch in range(6):
        criterion.set_epoch(epoch)
        weights.append(criterion.weight)
    assert weights == [2, 2, 2, 2, 1.25, 0.5]
    found = criterion(features(), teacher_logits(), LABELS)
    parts = found.parts
    close(found.total, 0.5 * (parts["flow_labels"] + parts["flow_transfer"]) + parts["labels"] + parts["transfer"])


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_refined_features_flow_on_and_are_compared_in_the_teachers_shape(schedule: str) -> None:
    criterion = FeatureTransferLoss(
        channels=CHANNELS, teacher_channels=7, teacher_size=(3, 4), schedule=schedule, num_steps=3, weight=0.7
    )
    x, teacher = features(), torch.randn(BATCH, 7, 3, 4)
    found = criterion(x, teacher)
    last, estimates = chain(x, criterion.flow, schedule, 3)
    mapped = [
        functional.interpolate(
            functional.conv2d(one, criterion.transform.project.weight, criterion.transform.project.bias),
            (3, 4),
            mode="bilinear",
        )
        for one in estimates
    ]
    rows = [one.transpose(0, 1).flatten(1) for one in (teacher, *mapped)]
    close(found.total, 0.7 * mean([1 - pearson(one, rows[0]) for one in rows[1:]]), rtol=1e-7, atol=1e-9)
    close(found.features, last)
    later = nn.Conv2d(CHANNELS, 2, 1)
    close(
        *(torch.autograd.grad(later(state).square().sum(), x, retain_graph=True)[0] for state in (found.features, last))
    )
    close(criterion.flow.final_state(x, 3), found.features)
    close(criterion(x, teacher, num_steps=1).features, chain(x, criterion.flow, schedule, 1)[0])


@pytest.mark.parametrize("name", ["kd", "dkd"])
def test_a_plain_head_costs_labels_and_what_the_teacher_says(name: str) -> None:
    """The control without a flow, and what stands beside the features of ``FeatureTransferLoss``."""
    logits, teacher = torch.randn(BATCH, CLASSES, requires_grad=True), teacher_logits()
    found = HeadTransferLoss(loss=name, weight=0.3)(logits, teacher, LABELS)
    close(found.total, cross_entropy(logits) + 0.3 * {"kd": kd, "dkd": dkd}[name](logits, teacher))
    close(found.step_logits[0], found.logits)
    heads = torch.stack([logits, 2 * logits])
    several = HeadTransferLoss(loss=name, weight=0.3)(heads, teacher, LABELS)
    alone = [HeadTransferLoss(loss=name, weight=0.3)(one, teacher, LABELS).total for one in heads]
    close(several.total, mean(alone))
    close(several.logits, 1.5 * logits)
    assert several.step_logits is heads
    with pytest.raises(ValueError, match=r"^teacher_logits: got the shape \(6, 4\); the student's is \(6, 5\)$"):
        HeadTransferLoss()(logits, teacher[:, :4], LABELS)


def test_larger_numbers_of_steps_wait_for_their_epochs() -> None:
    criterion = FeatureTransferLoss(channels=CHANNELS, teacher_channels=4, teacher_size=(5, 3))
    drawn = {}
    for epoch in (0, 10, 30, 150):
        criterion.set_epoch(epoch)
        drawn[epoch] = {criterion.steps.draw() for _ in range(100)}
    assert drawn == {0: {1}, 10: {1, 2}, 30: {1, 2, 4}, 150: {1, 2, 4, 8, 16}}


def test_losses_have_the_defaults_of_the_pipelines_settings() -> None:
    compared = 0
    for name, loss in LOGIT_LOSSES.items():
        settings = CRITERIA[name].settings
        own = {
            key: one.default for key, one in inspect.signature(loss).parameters.items() if one.default is not one.empty
        }
        theirs = {} if settings is None else {key: field.default for key, field in settings.model_fields.items()}
        theirs.pop("warmup_epochs", None)  # the pipeline's criterion counts epochs
        assert own == theirs, name
        compared += len(own)
    assert compared == 7


@pytest.mark.parametrize("width", [None, 3])
@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("name", META_ENCODERS)
def test_the_folded_form_equals_the_flow(name: str, schedule: str, width: int | None) -> None:
    options = {"schedule": schedule, "meta_encoder": name, "time_scale": 10.0, "width": width}
    logits = build_logit_flow(channels=CHANNELS, num_classes=CLASSES, **options)  # type: ignore[arg-type]
    maps = build_flow(channels=CHANNELS, transform=nn.Identity(), **options)  # type: ignore[arg-type]
    x = torch.randn(2, CHANNELS, 4, 6)
    with torch.no_grad():
        for flow, count in itertools.product((logits, maps), (1, 2, 4)):
            folded = fold(flow, count, (4, 6))
            torch.testing.assert_close(folded(x), flow(x, count), rtol=1e-9, atol=1e-9)
            torch.testing.assert_close(folded.final_state(x), flow.final_state(x, count), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_form_that_deploys_equals_a_flow_that_predicts_its_target(schedule: str) -> None:
    flow = flow_loss(schedule=schedule, predicts="target", initial_weights="fan_out").flow
    x = torch.randn(2, CHANNELS, 4, 6)
    with torch.no_grad():
        for count in (1, 2, 4):
            deployed = fold(flow, count, (4, 6))
            torch.testing.assert_close(deployed(x), flow(x, count), rtol=1e-9, atol=1e-9)
            torch.testing.assert_close(deployed.final_state(x), flow.final_state(x, count), rtol=1e-9, atol=1e-9)


def flow_loss(**changes: Any) -> FlowTransferLoss:
    return FlowTransferLoss(**{"channels": CHANNELS, "num_classes": CLASSES, **changes})


def feature_loss(**changes: Any) -> FeatureTransferLoss:
    options = {"channels": CHANNELS, "teacher_channels": 7, "teacher_size": (3, 4), "num_steps": 2, **changes}
    return FeatureTransferLoss(**options)


def theta_loss(head: nn.Module | None = None, **changes: Any) -> ThetaTransferLoss:
    return ThetaTransferLoss(head, channels=CHANNELS, num_classes=CLASSES, **changes)


def answer(*shape: int) -> Tensor:
    return torch.zeros(shape)


def own_velocity() -> FlowTransfer:
    return FlowTransfer(velocity=lambda x, t: x, schedule=RectifiedFlow(), transform=nn.Identity())  # noqa: ARG005


@pytest.mark.parametrize(
    ("refused", "words"),
    [
        (lambda: flow_loss(channels=None), "channels: got None; give an int of at least 1"),
        (lambda: flow_loss(channels=2.5), "channels: got 2.5; give an int of at least 1"),
        (lambda: flow_loss(num_classes=0), "num_classes: got 0; give an int of at least 1"),
        (lambda: flow_loss(width=0), "width: got 0; give an int of at least 1"),
        (lambda: flow_loss(flow=own_velocity()), "flow: got one, and channels, num_classes or options"),
        (lambda: flow_loss(loss="kld"), "loss: got 'kld'; give kd, dkd, dist, mse, or a function of two tensors"),
        (lambda: flow_loss(loss=3), "loss: got a int; give kd, dkd, dist, mse, or a function of two tensors"),
        (lambda: flow_loss(loss=nn.MSELoss), "loss: got the class MSELoss; give kd, dkd, dist, mse, or a function"),
        (lambda: flow_loss(label_loss="ce"), "label_loss: got 'ce'; give a function of logits"),
        (lambda: flow_loss(time_scale=math.nan), "time_scale: got nan; give a finite number of at least 0"),
        (lambda: FlowTransferLoss(flow=nn.Identity()), "flow: got a Identity; give a flow of build_flow"),  # type: ignore[arg-type]
        (lambda: start_at_rest(flow_loss()), "flow: got a FlowTransferLoss; give .* or a loss's: its .flow"),  # type: ignore[arg-type]
        (lambda: theta_loss("linear"), "head: got a str; give a module, or None"),  # type: ignore[arg-type]
        (lambda: flow_loss(schedule="linear"), "unknown schedule 'linear'; known: rectified, vp, ve"),
        (lambda: flow_loss(meta_encoder="convv"), "unknown meta-encoder 'convv'; did you mean conv"),
        (lambda: flow_loss(pair_ratio=1.5), "pair_ratio: got 1.5; give a share from 0 to 1"),
        (lambda: flow_loss(num_steps=0), "num_steps: got 0; give an int of at least 1, or several"),
        (lambda: flow_loss(num_steps="4"), "num_steps: got '4'; give an int of at least 1, or several"),
        (lambda: flow_loss(channels="4"), "channels: got '4'; give an int of at least 1"),
        (lambda: flow_loss(channels=np.int64(4)), r"channels: got np.int64\(4\); give an int of at least 1"),
        (lambda: flow_loss().set_epoch(-1), "epoch: got -1; give an int of at least 0"),
        (lambda: feature_loss().set_epoch("3"), "epoch: got '3'; give an int of at least 0"),  # type: ignore[arg-type]
        (lambda: flow_loss(num_steps=1.5), "num_steps: got 1.5; give an int of at least 1, or several"),
        (lambda: flow_loss(num_steps=[2, 0]), r"num_steps: got \[2, 0\]; give an int of at least 1, or several"),
        (lambda: flow_loss(num_steps=[]), r"num_steps: got \[\]; give an int of at least 1, or several"),
        (
            lambda: flow_loss(num_steps_warmup=-1),
            "num_steps_warmup: got -1; give an int, a number of epochs, 0 for none",
        ),
        (
            lambda: flow_loss()(answer(6, 3, 4, 4), answer(6, 5), LABELS),
            r"features: got the shape \(6, 3, 4, 4\); give \(B, 4, H, W\)",
        ),
        (
            lambda: flow_loss()(answer(6, 4), answer(6, 5), LABELS),
            r"features: got the shape \(6, 4\); give \(B, 4, H, W\)",
        ),
        (
            lambda: flow_loss()(answer(6, 4, 4, 4), answer(6, 7), LABELS),
            r"teacher_logits: got the shape \(6, 7\); the student's is \(6, 5\)",
        ),
        (
            lambda: flow_loss()(answer(6, 4, 4, 4), answer(6, 5), LABELS[:4]),
            r"labels: got the shape \(4,\); give \(6,\), one for each image",
        ),
        (lambda: theta_loss(target="head"), "target: got 'head'; give flow, teacher, both"),
        (lambda: theta_loss(weight_end=0.0), "epochs: got None; give an int of at least 1"),
        (
            lambda: theta_loss(nn.Flatten())(answer(6, 4, 4, 4), answer(6, 5), LABELS),
            r"head: returned the shape \(6, 64\); the student's is \(6, 5\)",
        ),
        (lambda: feature_loss(teacher_channels=0), "teacher_channels: got 0; give an int of at least 1"),
        (
            lambda: feature_loss(teacher_size=(3,)),
            r"teacher_size: got \(3,\); give height and width, ints of at least 1",
        ),
        (lambda: feature_loss(loss="kd"), "loss: got 'kd'; give pkd, mse, or a function of two tensors"),
        (lambda: feature_loss(pair_ratio=-0.1), "pair_ratio: got -0.1; give a share from 0 to 1"),
        (
            lambda: feature_loss()(answer(2, 5, 4, 4), answer(2, 7, 3, 4)),
            r"features: got the shape \(2, 5, 4, 4\); give \(B, 4, H, W\)",
        ),
        (
            lambda: feature_loss()(answer(2, 4, 4, 4), answer(2, 7, 4, 4)),
            r"teacher_features: got the shape \(2, 7, 4, 4\); the student's is \(2, 7, 3, 4\)",
        ),
        (
            lambda: feature_loss()(answer(2, 4, 4, 4), answer(2, 7, 3, 4), num_steps=0),
            "num_steps: got 0; give an int of at least 1",
        ),
        (lambda: fold(flow_loss().flow, 0, (4, 4)), "num_steps: got 0; give an int of at least 1"),
        (lambda: fold(flow_loss().flow, 1, (4,)), r"feature_size: got \(4,\); give height and width"),
        (lambda: fold(own_velocity(), 1, (4, 4)), "flow: got a velocity that is a function; give a flow of build_flow"),
        (lambda: start_at_rest(own_velocity()), "flow: got a velocity that ends in a function, which has no weight"),
        (lambda: build_meta_encoder("conv", 4, width=-2), "width: got -2; give an int of at least 1"),
    ],
)
def test_what_does_not_fit_is_refused_with_what_would(refused: Callable[[], Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        refused()


def test_an_unknown_argument_is_named_with_all_that_there_are() -> None:
    with pytest.raises(TypeError, match=r"^FlowTransferLoss: unknown argument 'temperature'; known: channels, .*width"):
        flow_loss(temperature=2.0)
    with pytest.raises(
        TypeError, match=r"^ThetaTransferLoss: .*'theta_weigth'; did you mean theta_weight.* known: target"
    ):
        theta_loss(theta_weigth=2.0)
    with pytest.raises(TypeError, match=r"^FeatureTransferLoss: unknown argument 'num_classes'; .*teacher_size"):
        feature_loss(num_classes=3)
    with pytest.raises(TypeError, match="unknown argument 'temperature'"):
        FlowTransferLoss(flow=flow_loss().flow, temperature=2.0)  # type: ignore[call-arg]


class Weighted(nn.Module):
    """A loss with a weight, of three arguments: only where the labels say so do the answers count."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(3.0))

    def forward(self, student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
        return self.factor * ((student - teacher).square().mean(dim=(0, 2)) * (labels == 0)).mean()


def test_losses_of_pytorch_and_modules_compare_student_and_teacher() -> None:
    """Those of PyTorch call what is here the teacher's their target."""
    features, teacher = torch.randn(6, CHANNELS, 4, 4), torch.randn(6, CLASSES)

    def distance(input: Tensor, target: Tensor) -> Tensor:  # noqa: A002  (as PyTorch names them)
        return nn.functional.l1_loss(input, target.expand_as(input))

    for loss in (distance, functools.partial(mse_loss)):
        criterion = flow_loss(loss=loss, num_steps=3)
        outputs = criterion.step_logits(features)
        found = criterion(features, teacher, LABELS).parts["transfer"]
        expected = (outputs - teacher).abs().mean() if loss is distance else (outputs - teacher).square().mean()
        torch.testing.assert_close(found, expected)
    criterion = flow_loss(loss=Weighted(), num_steps=3)
    expected = 3 * ((criterion.step_logits(features) - teacher).square().mean(dim=(0, 2)) * (LABELS == 0)).mean()
    found = criterion(features, teacher, LABELS)
    torch.testing.assert_close(found.parts["transfer"], expected)
    assert expected.item() > 0
    found.total.backward()
    [weight] = [parameter for parameter in criterion.parameters() if parameter.dim() == 0]
    torch.testing.assert_close(weight.grad, expected.detach() / 3)


@pytest.mark.parametrize(
    ("returned", "words"),
    [
        (lambda a, b: (a - b).square(), r"returned the shape \(4, 6, 5\); let it return one number"),
        (lambda a, b: 1.0, "returned a float; let it return a tensor"),  # noqa: ARG005
        (lambda a, b: None, "returned a NoneType; let it return a tensor"),  # noqa: ARG005
    ],
)
def test_a_loss_that_returns_no_scalar_is_refused(returned: Callable[[Tensor, Tensor], Any], words: str) -> None:
    given = torch.rand(6, CHANNELS, 4, 4), torch.rand(6, CLASSES), LABELS
    with pytest.raises(ValueError, match=f"^loss: {words}"):
        flow_loss(loss=returned)(*given)
    with pytest.raises(ValueError, match=r"^label_loss: returned the shape \(4, 6\)"):
        flow_loss(label_loss=lambda logits, _: logits.sum(-1))(*given)


@pytest.mark.parametrize(
    ("name", "schedule"), [*((name, "rectified") for name in META_ENCODERS), ("conv", "vp"), ("conv", "ve")]
)
def test_a_network_all_in_half_precision_trains_and_folds(name: str, schedule: str) -> None:
    torch.manual_seed(0)
    criterion = flow_loss(meta_encoder=name, schedule=schedule, loss="kd").float()
    x, teacher = torch.rand(6, CHANNELS, 4, 4).float(), torch.rand(6, CLASSES).float()
    expected = criterion(x, teacher, LABELS)
    half = criterion.bfloat16()
    found = half(x.bfloat16(), teacher, LABELS)
    torch.testing.assert_close(found.logits.float(), expected.logits, rtol=0.1, atol=0.1)
    found.total.backward()
    for count in (1, 4):
        with torch.no_grad():
            deployed = fold(half.flow, count, (4, 4))(x.bfloat16())
            torch.testing.assert_close(deployed, half.flow(x.bfloat16(), count), rtol=0.1, atol=0.1)


def test_half_features_need_no_cast_but_for_a_flow_with_a_width() -> None:
    x = torch.rand(6, CHANNELS, 4, 4).bfloat16()
    wide, narrow = (flow_loss(width=width).float() for width in (None, 2))
    assert wide(x, torch.rand(6, CLASSES), LABELS).logits.dtype == torch.float32
    with pytest.raises(ValueError, match=r"^features: got torch.bfloat16 on cpu; the flow is torch.float32 on cpu"):
        narrow(x, torch.rand(6, CLASSES), LABELS)
    with torch.autocast("cpu", torch.bfloat16):
        assert narrow(x, torch.rand(6, CLASSES), LABELS).total.isfinite()


@pytest.mark.parametrize(
    ("refused", "words"),
    [
        (
            lambda: kd_loss(torch.rand(2, 5), torch.rand(2, 1)),
            r"teacher: got the shape \(2, 1\); the student's is \(2, 5\)",
        ),
        (lambda: mse_loss(torch.rand(2, 5), torch.rand(5)[:1]), "teacher: got the shape"),
        (lambda: pkd_loss(torch.rand(2, 5), torch.rand(2, 5)), r"teacher: got the shape \(2, 5\); give \(B, C, H, W\)"),
        (
            lambda: kd_loss(torch.rand(2, 5), torch.rand(2, 5), 0.0),
            "temperature: got 0.0; give a finite number above 0",
        ),
        (lambda: dkd_loss(torch.rand(2, 5), torch.rand(2, 5), torch.rand(2)), "target: got torch.float64; give class"),
        (
            lambda: step_cross_entropy(torch.rand(2, 5), torch.tensor([0, 1]).int()),
            "labels: got torch.int32; give class",
        ),
        (
            lambda: step_cross_entropy(torch.rand(2, 5), torch.zeros(2).long().to("meta")),
            "labels: got a tensor on meta",
        ),
        (lambda: FlowTransferLoss(channels=4, num_classes=3, weight=math.nan), "weight: got nan; give a finite number"),
        (lambda: FlowTransferLoss(channels=4, num_classes=3, num_steps_warmup=1.5), "num_steps_warmup: got 1.5"),
        (lambda: StepSampler([]), r"num_steps: got \[\]; give an int of at least 1"),
        (lambda: paired([torch.rand(2, 3)], 2.0), "ratio: got 2.0; give a share from 0 to 1"),
        (lambda: paired([torch.rand(2, 3), torch.rand(3, 3)], 0.5), r"targets: got batches of \[2, 3\]"),
        (
            lambda: loss_of(torch.rand(2, 4, 4, 4).float()),
            "features: got torch.float32 on cpu; the flow is torch.float64",
        ),
        (lambda: loss_of(torch.ones(2, 4, 4, 4).long()), "features: got torch.int64; give floating-point numbers"),
        (lambda: loss_of(torch.rand(0, 4, 4, 4)), r"features: got the shape \(0, 4, 4, 4\), which is empty"),
        (lambda: loss_of(None), "features: got a NoneType; give a tensor"),
        (lambda: build_logit_flow(channels=4, num_classes=0, **PLAIN), "num_classes: got 0"),
        (
            lambda: build_logit_flow(channels=4, num_classes=3, **PLAIN)(torch.rand(2, 4, 4, 4), 2.5),
            "num_steps: got 2.5",
        ),
        (lambda: fold(torch.nn.Identity(), 1, (4, 4)), "flow: got a Identity; give a flow of build_flow"),  # type: ignore[arg-type]
    ],
)
def test_no_argument_is_left_to_fail_within_pytorch_or_to_be_broadcast(refused: Callable[[], Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        refused()


PLAIN: dict[str, Any] = {"schedule": "rectified", "meta_encoder": "conv", "time_scale": 1.0}


def loss_of(features: Any) -> Any:
    loss = FlowTransferLoss(channels=4, num_classes=3)
    return loss(features, torch.rand(2, 3), torch.tensor([0, 1]))
