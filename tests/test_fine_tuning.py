"""A backbone that was given: frozen at first, slower than the rest, with batch statistics of its own."""

from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn

from pipeline.networks.saved import build_network
from pipeline.networks.spec import NetworkSpec
from pipeline.training.batch_norms import keep_up_batch_norms
from pipeline.training.execution import Execution
from pipeline.training.fine_tuning import TunedBackbone
from pipeline.training.loop import Row, build_step
from pipeline.training.objective import Objective, Supervised
from pipeline.training.optim import build_optimizer
from pipeline.training.settings import FineTuning, LearningRate, Optimizer, Training
from pipeline.training.start import backbone_names
from pipeline.training.step import TrainingStep
from tests.toy_objectives import VARIANTS, make_batch, tune, variant
from tests.toy_training import CPU, draft, run

PLAIN = {"backbone": "resnet8", "num_classes": 3, "mean": [0.5] * 3, "std": [0.2] * 3}
FLOW = {"schedule": "rectified", "meta_encoder": "conv", "time_scale": 1.0}


def step_of(objective: Objective, name: Literal["sgd", "adamw"] = "adamw", **tuning: Any) -> TrainingStep:
    """Return the steps of a training of three epochs of one step."""
    settings = Training(
        epochs=3,
        optimizer=Optimizer(name=name, learning_rate=0.01, weight_decay=0.1),
        schedule=LearningRate(warmup_epochs=0),
        fine_tuning=FineTuning(**tuning),
    )
    tune(objective, **tuning)
    return build_step(
        objective, Execution(CPU, "fp32", compiled=False, compile_fallback=False), settings, steps_per_epoch=1
    )


def copied(network: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def changed(network: nn.Module, before: dict[str, Tensor]) -> set[str]:
    return {name for name, tensor in network.state_dict().items() if not torch.equal(tensor, before[name])}


def test_what_the_networks_author_froze_is_not_freed_with_the_backbone() -> None:
    network = nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1))
    network[0].bias.requires_grad_(requires_grad=False)
    tuned = TunedBackbone(network, ["0.weight", "0.bias"], FineTuning(frozen_epochs=1))
    learning = []
    for epoch in range(2):
        tuned.set_epoch(epoch)
        learning.append([name for name, tensor in network.named_parameters() if tensor.requires_grad])
    assert learning == [["1.weight", "1.bias"], ["0.weight", "1.weight", "1.bias"]]


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("name", [*VARIANTS])
def test_a_frozen_backbone_stays_whole_and_learns_afterwards(name: str, optimizer: Literal["sgd", "adamw"]) -> None:
    """Weights, batch statistics and the optimizer's state of them; the rest learns from the first step on."""
    objective = variant(name, loss="pkd" if "features" in name else "kd")
    step = step_of(objective, optimizer, frozen_epochs=1)
    network = objective.network
    given = {f"0.{name}" for name in objective.tuned.names}
    before = copied(network)
    step.begin_epoch(0)
    step(make_batch())
    learnt = changed(network, before)
    assert learnt
    assert not learnt & given
    own = objective.tuned.parameters()
    assert all(parameter.grad is None for parameter in own)
    momenta = [value for parameter in own for value in step.optimizer.state.get(parameter, {}).values()]
    assert not any(bool(torch.as_tensor(value).any()) for value in momenta)
    step.begin_epoch(1)
    step(make_batch())
    learnt = changed(network, before)
    assert given & learnt >= {name for name in given if name.endswith(("conv1.weight", "running_mean"))}
    assert all(parameter.requires_grad for parameter in network.parameters())


def test_frozen_batch_statistics_stay_through_all_epochs_while_weights_learn() -> None:
    objective = variant("fm_kt")
    step = step_of(objective, batch_norm="frozen")
    before = copied(objective.student)
    for epoch in range(2):
        step.begin_epoch(epoch)
        step(make_batch())
    objective.train()
    assert not any(norm.training for norm in objective.tuned.batch_norms())
    flow = objective.student.flow
    assert all(module.training for module in flow.modules())
    learnt = changed(objective.student, before)
    assert "backbone.conv1.weight" in learnt
    assert not [name for name in learnt if "running" in name and name.startswith("backbone.")]


@pytest.mark.parametrize("decay_all", [True, False])
def test_the_backbone_learns_at_a_rate_of_its_own(decay_all: bool) -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2))
    settings = Optimizer(learning_rate=0.2, weight_decay=0.1, decay_all=decay_all)
    backbone = [*network[:2].parameters()]
    optimizer, scheduler = build_optimizer(
        network,
        settings,
        LearningRate(warmup_epochs=0),
        steps_per_epoch=10,
        epochs=1,
        slowed=backbone,
        slowed_factor=0.1,
    )
    rates = {
        id(p): (group["initial_lr"], group["weight_decay"]) for group in optimizer.param_groups for p in group["params"]
    }
    decays = [0.1, *([0.1] * 3 if decay_all else [0.0] * 3)]
    assert [rates[id(p)] for p in backbone] == [(pytest.approx(0.02), decay) for decay in decays]
    assert [rates[id(p)] for p in network[2].parameters()] == [(0.2, 0.1), (0.2, 0.1 if decay_all else 0.0)]
    before, after = (list(scheduler.get_last_lr()), None)
    optimizer.step()
    scheduler.step()
    after = scheduler.get_last_lr()
    assert after[-1] / after[0] == pytest.approx(before[-1] / before[0]) == pytest.approx(0.1)


def test_a_step_with_a_factor_moves_the_backbone_by_that_share_of_what_it_would() -> None:
    """Plain descent: the same gradient, a tenth of the way; the other layers move as before."""
    moved = []
    for factor in (1.0, 0.1):
        objective = variant("metric")
        step = step_of(objective, "sgd", backbone_learning_rate_factor=factor)
        before = copied(objective.student)
        step.begin_epoch(0)
        step(make_batch())
        moved.append({name: tensor - before[name] for name, tensor in objective.student.named_parameters()})
    for name, whole in moved[0].items():
        share = 0.1 if name.startswith("backbone.") else 1.0
        torch.testing.assert_close(moved[1][name], share * whole, rtol=1e-3, atol=1e-7)


def given_draft() -> Supervised:
    """Return the toy network, whose convolution and batch normalisation were given."""
    objective = draft()
    names = [name for name in objective.student.state_dict() if name.startswith("1.")]
    tuned = tune(objective, frozen_epochs=2)
    tuned.names = frozenset(names)
    return objective


@pytest.mark.parametrize("last", [1, 2, 3])
def test_a_run_interrupted_before_or_after_the_thaw_ends_with_the_same_bits(last: int, tmp_path: Path) -> None:
    changes = {
        "epochs": 4,
        "fine_tuning": FineTuning(frozen_epochs=2, backbone_learning_rate_factor=0.5),
        "optimizer": Optimizer(name="adamw", learning_rate=0.01),
    }
    whole, rows = run(tmp_path / "whole", given_draft(), **changes)

    def interrupt(rows: list[Row]) -> None:
        if len(rows) == last:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "parts", given_draft(), **changes, on_epoch=interrupt)
    parts, rows_again = run(tmp_path / "parts", given_draft(), **changes)
    assert rows_again == rows
    assert all(torch.equal(a, b) for a, b in zip(whole.state_dict().values(), parts.state_dict().values(), strict=True))


def test_batch_normalisations_that_stay_keep_their_momentum() -> None:
    network = nn.Sequential(nn.BatchNorm2d(2, momentum=0.001), nn.BatchNorm2d(2, momentum=0.001))
    kept, raised = network[0], network[1]
    assert isinstance(kept, nn.BatchNorm2d)
    assert isinstance(raised, nn.BatchNorm2d)
    keep_up_batch_norms(network, num_steps=10, frozen=[kept])
    assert (kept.momentum, raised.momentum) == (0.001, 0.1)


def test_frozen_epochs_change_nothing_where_no_weights_were_given() -> None:
    momenta = []
    for frozen_epochs in (0, 2):
        trained = draft()
        norm = trained.student[1][1]
        norm.momentum = 0.001
        settings = Training(epochs=3, fine_tuning=FineTuning(frozen_epochs=frozen_epochs))
        execution = Execution(CPU, "fp32", compiled=False, compile_fallback=False)
        build_step(trained, execution, settings, steps_per_epoch=1000)
        momenta.append(norm.momentum)
    assert momenta[0] == momenta[1] > 0.001


@pytest.mark.parametrize(
    ("kind", "arguments", "others"),
    [
        ("classifier", {}, {"head.linear.weight", "head.linear.bias"}),
        ("classifier", {"backbone": "mobilenet_v3_small"}, {"head.classifier.3.weight", "head.classifier.3.bias"}),
        ("flow_student", FLOW, {"flow."}),
        ("feature_flow_student", FLOW | {"stages": [2]}, {"head.linear.", "flows."}),
        ("layered_classifier", {"layers": "mlp"}, {"head."}),
    ],
)
def test_the_backbone_is_all_but_the_output_layer_and_meta_encoders(
    kind: str, arguments: dict[str, Any], others: set[str]
) -> None:
    spec = NetworkSpec(kind, PLAIN | arguments)
    network = build_network(spec)
    found = backbone_names(network, spec, build_network, {"num_classes": 3})
    assert found == {name for name in network.state_dict() if not name.startswith(tuple(others))}
