"""Learning-rate schedules, weight decay, and the average of the weights."""

from typing import Literal

import pytest
import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, OneCycleLR

from pipeline.training.optim import WeightAverage, build_optimizer, learning_rate_factor
from pipeline.training.settings import LearningRate
from pipeline.training.settings import Optimizer as OptimizerSettings

SGD = OptimizerSettings(weight_decay=0.1)
AT_ONCE = LearningRate(warmup_epochs=0)


def build(network: nn.Module, settings: OptimizerSettings) -> tuple[Optimizer, LambdaLR]:
    """Return the optimizer and the scheduler of one epoch of one step."""
    return build_optimizer(network, settings, AT_ONCE, steps_per_epoch=1, epochs=1)


@pytest.mark.parametrize(("epoch", "expected"), [(0, 0), (1, 0.5), (2, 1), (6, 0.5), (10, 0)])
def test_cosine_warms_up_and_falls_to_zero(epoch: float, expected: float) -> None:
    factor = learning_rate_factor(epoch, LearningRate(name="cosine", warmup_epochs=2), epochs=10)
    assert factor == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("epoch", "expected"), [(0, 1), (2.99, 1), (3, 0.1), (4.9, 0.1), (5, 0.01)])
def test_multistep_falls_at_its_milestones(epoch: float, expected: float) -> None:
    schedule = LearningRate(name="multistep", warmup_epochs=0, milestones=(5, 3))
    assert learning_rate_factor(epoch, schedule, epochs=10) == pytest.approx(expected)


def test_one_cycle_is_that_of_pytorch() -> None:
    """PyTorch's cycle peaks at step pct_start * total - 1 and ends at step total - 1."""
    steps = 41
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    reference = OneCycleLR(optimizer, max_lr=1.0, total_steps=steps, pct_start=9 / steps, cycle_momentum=False)
    for step in range(steps):
        found = learning_rate_factor(step, LearningRate(name="one_cycle", warmup_epochs=8), epochs=steps - 1)
        assert found == pytest.approx(reference.get_last_lr()[0], abs=1e-9)
        optimizer.step()
        if step < steps - 1:
            reference.step()


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_biases_and_norms_can_be_spared_from_weight_decay(name: Literal["sgd", "adamw"]) -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    for decay_all, expected in ((True, [0.1] * 4), (False, [0.1, 0.0, 0.0, 0.0])):
        settings = OptimizerSettings(name=name, weight_decay=0.1, decay_all=decay_all)
        groups = build(network, settings)[0].param_groups
        found = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
        assert [found[id(p)] for p in network.parameters()] == expected


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_a_first_step_that_overflows_in_half_precision_leaves_weights_and_state_as_they_were(
    name: Literal["sgd", "adamw"],
) -> None:
    network = nn.Linear(3, 2)
    before = [p.detach().clone() for p in network.parameters()]
    optimizer, _ = build(network, OptimizerSettings(name=name, weight_decay=0.0))
    scaler = torch.amp.GradScaler("cpu")
    for factor in (torch.inf, 0.0):  # an overflow, then a gradient of zero
        optimizer.zero_grad()
        scaler.scale((network(torch.ones(1, 3)) * factor).sum()).backward()
        scaler.step(optimizer)
        scaler.update()
    assert all(torch.equal(p, b) for p, b in zip(network.parameters(), before, strict=True))


def test_momentum_starts_from_zero_as_pytorchs_does() -> None:
    networks = [nn.Linear(3, 2) for _ in range(2)]
    networks[1].load_state_dict(networks[0].state_dict())
    ours, scheduler = build(networks[0], SGD)
    rate = scheduler.get_last_lr()[0]
    plain = torch.optim.SGD(networks[1].parameters(), lr=rate, momentum=0.9, nesterov=True, weight_decay=0.1)
    for _ in range(3):
        for network, optimizer in zip(networks, (ours, plain), strict=True):
            optimizer.zero_grad()
            network(torch.ones(1, 3)).square().sum().backward()
            optimizer.step()
    for one, other in zip(*(network.parameters() for network in networks), strict=True):
        torch.testing.assert_close(one, other)


def test_adamw_takes_the_step_of_its_formula() -> None:
    """First step of Loshchilov and Hutter 2019: bias correction leaves g / (|g| + eps), decay is apart."""
    network = nn.Linear(2, 1, bias=False)
    before, gradient = network.weight.detach().clone(), torch.tensor([[0.5, -2.0]])
    settings = OptimizerSettings(name="adamw", betas=(0.8, 0.95), weight_decay=0.1)
    optimizer, scheduler = build(network, settings)
    network.weight.grad = gradient
    rate = scheduler.get_last_lr()[0]
    optimizer.step()
    expected = before * (1 - rate * 0.1) - rate * gradient / (gradient.abs() + 1e-8)
    torch.testing.assert_close(network.weight.detach(), expected)
    assert optimizer.param_groups[0]["betas"] == (0.8, 0.95)


def test_the_average_of_the_weights_is_that_of_its_formula_and_can_be_put_in_place() -> None:
    network = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)).double()
    average = WeightAverage(network, 0.5)
    expected = [p.detach().clone() for p in network.parameters()]
    for n in range(1, 20):
        with torch.no_grad():
            for p in network.parameters():
                p.add_(torch.randn_like(p))
        average.update()
        decay = min(0.5, (1 + n) / (10 + n))
        expected = [decay * e + (1 - decay) * p.detach() for e, p in zip(expected, network.parameters(), strict=True)]
    live = [p.detach().clone() for p in network.parameters()]
    with average.applied():
        torch.testing.assert_close([p.detach() for p in network.parameters()], expected)
    assert all(torch.equal(a, b) for a, b in zip(live, network.parameters(), strict=True))
    average.install()
    torch.testing.assert_close([p.detach() for p in network.parameters()], expected)


def test_running_statistics_are_averaged_and_counts_are_not() -> None:
    network = nn.BatchNorm1d(2)
    average = WeightAverage(network, 0.5)
    network(torch.randn(4, 2))
    average.update()
    with average.applied():
        assert network.num_batches_tracked == 1
        assert not torch.equal(network.running_mean, torch.zeros(2))  # type: ignore[arg-type]
