"""What the library refuses of labels, states and sizes, by name and before PyTorch sees it; and no GPU waits for it."""

import inspect
import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import models
from models.deploy import UnrolledFlow, fold, folded
from models.flow import FlowTransfer, build_flow, build_logit_flow
from models.flow_paths.rectified import RectifiedFlow
from models.integrate import euler
from models.likelihood import categorical_figures, flow_log_likelihood, gaussian_figures
from models.losses import dist_loss, dkd_loss, kd_loss, mse_loss, pkd_loss, step_cross_entropy
from models.schedules import SCHEDULES
from models.transfer_losses import (
    FeatureTransferLoss,
    FlowTransferLoss,
    HeadTransferLoss,
    OnlineTransferLoss,
    ThetaTransferLoss,
    paired,
)

BATCH, CHANNELS, CLASSES = 6, 4, 5
SIZES: dict[str, Any] = {"channels": CHANNELS, "num_classes": CLASSES}
FLOW: dict[str, Any] = {"schedule": "rectified", "meta_encoder": "conv", "time_scale": 1.0}


def maps(*, device: str = "cpu") -> Tensor:
    return torch.rand(BATCH, CHANNELS, 4, 4, device=device)


def logits(*, device: str = "cpu") -> Tensor:
    return torch.rand(BATCH, CLASSES, device=device)


def without_labels(answers: Tensor, labels: Any) -> Tensor:  # noqa: ARG001
    """Stand for a label loss of one's own, beside which dkd still takes the labels."""
    return answers.mean()


LABEL_TAKERS: dict[str, Callable[[Any], Any]] = {
    "step_cross_entropy": lambda labels: step_cross_entropy(logits(), labels),
    "dkd_loss": lambda labels: dkd_loss(logits(), logits(), labels),
    "FlowTransferLoss": lambda labels: FlowTransferLoss(**SIZES)(maps(), logits(), labels),
    "OnlineTransferLoss": lambda labels: OnlineTransferLoss(**SIZES)(maps(), labels),
    "ThetaTransferLoss": lambda labels: ThetaTransferLoss(None, **SIZES)(maps(), logits(), labels),
    "HeadTransferLoss": lambda labels: HeadTransferLoss()(logits(), logits(), labels),
    "HeadTransferLoss of dkd": lambda labels: HeadTransferLoss(loss="dkd", label_loss=without_labels)(
        logits(), logits(), labels
    ),
}


def test_all_that_takes_labels_is_tried_below() -> None:
    offered = {name: getattr(models, name) for name in models.__all__}
    called = {name: getattr(one, "forward", one) for name, one in offered.items() if callable(one)}
    takers = {name for name, one in called.items() if "labels" in inspect.signature(one).parameters}
    assert takers | {"dkd_loss"} == {name.partition(" ")[0] for name in LABEL_TAKERS}


@pytest.mark.parametrize("taker", LABEL_TAKERS)
@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ([0, 1, 2, 3, 4, 5], "got 5, and there are logits of 5 classes; give 0 to 4"),
        ([0, 1, 2, 3, 4, -1], "got -1, and there are logits of 5 classes; give 0 to 4"),
        ([0, 1, 2, 3, 4, -100], "got -100, and there are logits of 5 classes; give 0 to 4"),
        ([0, 1, 2, 3, 4], r"got the shape \(5,\); give \(6,\), one for each image"),
        ([[0], [1], [2], [3], [4], [0]], r"got the shape \(6, 1\); give \(6,\), one for each image"),
        ([0.0, 1.0, 2.0, 3.0, 4.0, 0.0], "got torch.float32; give class numbers, a tensor of int64 such as"),
        ([True] * 6, "got torch.bool; give class numbers"),
    ],
)
def test_labels_that_name_no_class_of_each_image_are_refused(taker: str, labels: Any, words: str) -> None:
    with pytest.raises(ValueError, match=f"^(labels|target): {words}"):
        LABEL_TAKERS[taker](torch.tensor(labels))
    with pytest.raises(ValueError, match=r"^(labels|target): got a list; give class numbers"):
        LABEL_TAKERS[taker](labels)


def test_the_edges_of_the_range_are_labels_and_none_is_left_out() -> None:
    answers = logits().requires_grad_()
    for label in (0, CLASSES - 1):
        cost = step_cross_entropy(answers, torch.full((BATCH,), label))
        torch.testing.assert_close(cost, -answers.log_softmax(1)[:, label].mean())


def test_code_that_is_compiled_reads_no_label() -> None:
    """Else the graph would break at each loss, to see whether one is out of range."""
    compiled = torch.compile(step_cross_entropy, backend="eager", fullgraph=True)
    answers, labels = logits(), torch.arange(BATCH) % CLASSES
    torch.testing.assert_close(compiled(answers, labels), step_cross_entropy(answers, labels))


@pytest.mark.parametrize("loss", ["kd", "dkd", "dist", "mse"])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_no_number_of_a_device_is_read_for_which_training_would_wait(schedule: str, loss: str) -> None:
    """Tensors on ``meta`` have no numbers: what reads one fails there, as what reads one of a GPU waits for it."""
    options: dict[str, Any] = {**SIZES, "schedule": schedule, "loss": loss}
    labels = torch.zeros(BATCH, dtype=torch.int64, device="meta")
    with pytest.raises(RuntimeError, match="meta"):
        labels.max().item()
    features, teacher = maps(device="meta").requires_grad_(), logits(device="meta")
    totals = [
        FlowTransferLoss(**options, pair_ratio=0.5).to("meta")(features, teacher, labels).total,
        OnlineTransferLoss(**options).to("meta")(features, labels).total,
        ThetaTransferLoss(None, target="both", **options).to("meta")(features, teacher, labels).total,
        HeadTransferLoss(loss=loss)(teacher.clone().requires_grad_(), teacher, labels).total,
    ]
    shape: dict[str, Any] = {"channels": CHANNELS, "teacher_channels": CHANNELS, "teacher_size": (4, 4)}
    totals.append(FeatureTransferLoss(**shape, schedule=schedule).to("meta")(features, features.detach()).total)
    for total in totals:
        total.backward()
        assert total.device.type == "meta"


# ---------------------------------------------------------------------------------------------- pairs of tensors


@pytest.mark.parametrize(
    ("refused", "words"),
    [
        (lambda: kd_loss(maps(), maps()), r"teacher: got the shape \(6, 4, 4, 4\); give \(B, num_classes\)"),
        (lambda: dist_loss(logits()[0], logits()[0]), r"teacher: got the shape \(5,\); give \(B, num_classes\)"),
        (lambda: pkd_loss(logits(), logits()), r"teacher: got the shape \(6, 5\); give \(B, C, H, W\)"),
        (lambda: mse_loss(logits(), logits()[:0]), r"teacher: got the shape \(0, 5\), which is empty"),
        (lambda: mse_loss(logits(), logits()[:1]), r"teacher: got the shape \(1, 5\); the student's is \(6, 5\)"),
        (lambda: kd_loss([[1.0]], logits()), "student: got a list; give a tensor"),
        (lambda: kd_loss(logits(), logits().long()), "teacher: got torch.int64; give floating-point numbers, such as"),
        (lambda: kd_loss(logits(), logits(device="meta")), "teacher: got a tensor on meta; the student's is on cpu"),
        (lambda: kd_loss(logits(), logits(), float("inf")), "temperature: got inf; give a finite number above 0"),
        (
            lambda: dkd_loss(logits()[:, :1], logits()[:, :1], torch.zeros(BATCH, dtype=torch.int64)),
            "student: got logits of 1 class, beside which there is no other",
        ),
        (
            lambda: step_cross_entropy(logits()[0], torch.tensor(1)),
            r"logits: got the shape \(5,\); give \(..., B, num_classes\)",
        ),
        (
            lambda: step_cross_entropy(logits(), torch.zeros(BATCH).long(), 1.5),
            "label_smoothing: got 1.5; give a share",
        ),
        (
            lambda: HeadTransferLoss()(maps(), maps(), torch.zeros(BATCH).long()),
            r"logits: got the shape \(6, 4, 4, 4\); give \(B, num_classes\)",
        ),
        (lambda: paired([torch.tensor(1.0)], 0.5), r"targets: got the shape \(\); give \(B, \.\.\.\)"),
        (lambda: paired([logits(), logits(device="meta")], 0.5), "targets: got tensors on .*'cpu', 'meta'"),
        (
            lambda: categorical_figures(logits(), logits()),
            r"steps: got the shape \(6, 5\); give \(K, 6, 5\)",
        ),
        (
            lambda: gaussian_figures(logits()[:, 0], logits()[:, 0], variance=1.0, dims=1),
            r"target: got the shape \(6,\); give \(B, C, \.\.\.\)",
        ),
        (
            lambda: gaussian_figures(logits(), logits(device="meta")[None], variance=1.0, dims=5),
            "steps: got a tensor on meta; what they are compared with is on cpu",
        ),
    ],
)
def test_tensors_that_are_no_pair_are_refused(refused: Callable[[], Any], words: str) -> None:
    with pytest.raises(ValueError, match=f"^{words}"):
        refused()


# -------------------------------------------------------------------------------------------------------- states


def of_shape(*shape: int) -> Any:
    """Return a velocity that is of one shape, whatever the state's."""
    return lambda *, x, t: torch.zeros(shape)  # noqa: ARG005


def own_flow() -> FlowTransfer:
    return FlowTransfer(velocity=lambda *, x, t: x, schedule=RectifiedFlow(), transform=nn.Identity())  # noqa: ARG005


@pytest.mark.parametrize(
    ("refused", "words"),
    [
        (lambda: euler(of_shape(1), maps(), 2), r"velocity: returned the shape \(1,\); the state's is \(6, 4, 4, 4\)"),
        (lambda: euler(of_shape(6, 4, 4, 1), maps(), 2), r"velocity: returned the shape \(6, 4, 4, 1\); the state's"),
        (lambda: euler(lambda *, x, t: None, maps(), 2), "velocity: got a NoneType; give a tensor"),  # type: ignore[arg-type,return-value]  # noqa: ARG005
        (lambda: euler(of_shape(1), torch.tensor(1.0), 2), r"x: got the shape \(\); give \(B, \.\.\.\)"),
        (lambda: euler(of_shape(1), [1.0], 2), "x: got a list; give a tensor"),  # type: ignore[arg-type]
        (lambda: euler(of_shape(6, 5), logits().long(), 2), "x: got torch.int64; give floating-point numbers"),
        (lambda: own_flow()(torch.tensor(1.0), 2), r"x: got the shape \(\); give \(B, \.\.\.\)"),
        (lambda: logit_flow()(maps()[:, :3], 2), r"x: got the shape \(6, 3, 4, 4\); give \(B, 4, H, W\)"),
        (lambda: logit_flow().step_outputs(maps()[0], 2), r"x: got the shape \(4, 4, 4\); give \(B, 4, H, W\)"),
        (lambda: logit_flow().estimates(logits(), 2), r"x: got the shape \(6, 5\); give \(B, 4, H, W\)"),
        (
            lambda: logit_flow().final_state(maps().double(), 2),
            "x: got torch.float64 on cpu; the flow is torch.float32",
        ),
        (lambda: logit_flow().field(maps()[:, :3]), r"source: got the shape \(6, 3, 4, 4\); give \(B, 4, H, W\)"),
        (
            lambda: logit_flow().field(maps())(maps()[:, :, :2], 0.5),
            r"state: got the shape \(6, 4, 2, 4\); the source's is \(6, 4, 4, 4\)",
        ),
        (
            lambda: logit_flow().velocity(x=maps()[:, :1], t=torch.rand(BATCH)),
            r"x: got the shape \(6, 1, 4, 4\); give \(B, 4, H, W\)",
        ),
        (
            lambda: logit_flow().velocity(x=maps(), t=torch.rand(1)),
            r"t: got the shape \(1,\); give \(6\)",
        ),
        (
            lambda: flow_log_likelihood(lambda state, _: state[:1], maps(), maps(), variance=1.0, num_steps=1),
            r"velocity: returned the shape \(1, 4, 4, 4\); the state's is \(6, 4, 4, 4\)",
        ),
        (
            lambda: flow_log_likelihood(lambda state, _: state, maps(), logits(), variance=1.0),
            r"x: got the shape \(6, 4, 4, 4\); the source's is \(6, 5\)",
        ),
        (
            lambda: flow_log_likelihood(lambda state, _: state, logits()[:, 0], logits()[:, 0], variance=1.0),
            r"x: got the shape \(6,\); give \(B, C, \.\.\.\)",
        ),
    ],
)
def test_states_and_velocities_that_do_not_fit_are_refused(refused: Callable[[], Any], words: str) -> None:
    with pytest.raises(ValueError, match=f"^{words}"):
        refused()


def logit_flow(**changes: Any) -> FlowTransfer:
    return build_logit_flow(**SIZES, **{**FLOW, **changes})


@pytest.mark.parametrize("num_steps", [1, 2])
@pytest.mark.parametrize("width", [None, 2])
def test_a_collapsed_flow_is_of_one_size(width: int | None, num_steps: int) -> None:
    """With height and width exchanged there are as many places, and each tap would see the wrong ones."""
    flow = logit_flow(width=width)
    deployed = fold(flow, num_steps, (4, 6))
    x = torch.rand(2, CHANNELS, 6, 4)
    words = r"^x: got the shape \(2, 4, 6, 4\); give \(B, 4, 4, 6\), since the flow was folded for this size: fold it "
    with pytest.raises(ValueError, match=words):
        deployed(x)
    with torch.no_grad():
        torch.testing.assert_close(fold(flow, num_steps, (6, 4))(x), flow(x, num_steps))
        torch.testing.assert_close(deployed(x.mT), flow(x.mT, num_steps))


@pytest.mark.parametrize("width", [None, 2])
def test_forms_of_any_size_take_any_and_no_other_channels(width: int | None) -> None:
    """A map of one channel would be broadcast over all of them."""
    flow = logit_flow(width=width)
    features = build_flow(channels=CHANNELS, transform=nn.Identity(), **FLOW, width=width)
    forms = [fold(flow, 4, (4, 6)), fold(features, 1, (4, 6)), folded(flow, 2), UnrolledFlow(flow, 3)]
    for form, size in itertools.product(forms, [(4, 6), (6, 4), (3, 3)]):
        assert form(torch.rand(2, CHANNELS, *size)).shape[0] == 2
    for form, channels in itertools.product([*forms, fold(flow, 1, (4, 6))], (1, 3)):
        for call in (form, form.final_state):
            with pytest.raises(ValueError, match=rf"^x: got the shape \(2, {channels}, 4, 6\); give \(B, 4, "):
                call(torch.rand(2, channels, 4, 6))


# ----------------------------------------------------------------------------------------------- numbers of steps


@pytest.mark.parametrize("num_steps", [1, 3])
def test_a_call_says_how_many_steps_the_flows_of_a_student_take(num_steps: int) -> None:
    """All losses with a flow do it in one way, and what is given is not drawn."""
    labels = torch.arange(BATCH) % CLASSES
    calls: list[tuple[Any, tuple[Any, ...], dict[str, Any]]] = [
        (FlowTransferLoss, (maps(), logits(), labels), SIZES),
        (OnlineTransferLoss, (maps(), labels), SIZES),
        (ThetaTransferLoss, (maps(), logits(), labels), {"head": None, **SIZES}),
        (FeatureTransferLoss, (maps(), maps()), {"channels": 4, "teacher_channels": 4, "teacher_size": (4, 4)}),
    ]
    for build, arguments, options in calls:
        drawing, fixed = build(num_steps=[5, 7], **options), build(num_steps=num_steps, **options)
        fixed.load_state_dict(drawing.state_dict())
        before = torch.get_rng_state()
        found = drawing(*arguments, num_steps=num_steps)
        assert torch.equal(torch.get_rng_state(), before)
        torch.testing.assert_close(found.total, fixed(*arguments).total)
        if build is not FeatureTransferLoss:
            assert found.step_logits.shape == (num_steps, BATCH, CLASSES)
        for wrong in (0, 1.5, True):
            with pytest.raises(ValueError, match=f"^num_steps: got {wrong}; give an int of at least 1"):
                drawing(*arguments, num_steps=wrong)
