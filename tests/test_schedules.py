"""Schedules against automatic differentiation and the definition of the flow."""

import pytest
import torch

from models.schedules import SCHEDULES, get_schedule

TIMES = torch.linspace(0.05, 1.0, 20, dtype=torch.float64)


@pytest.mark.parametrize("name", sorted(SCHEDULES))
def test_derivatives_agree_with_autograd(name: str) -> None:
    schedule = get_schedule(name)
    for value, derivative in ((schedule.alpha, schedule.d_alpha), (schedule.sigma, schedule.d_sigma)):
        t = TIMES.clone().requires_grad_()
        (expected,) = torch.autograd.grad(value(t).sum(), t)
        torch.testing.assert_close(derivative(TIMES), expected)


@pytest.mark.parametrize("name", sorted(SCHEDULES))
def test_the_true_velocity_recovers_the_target(name: str) -> None:
    schedule = get_schedule(name)
    generator = torch.Generator().manual_seed(0)
    source, target = torch.randn(2, len(TIMES), 5, generator=generator, dtype=torch.float64)
    alpha, sigma = schedule.alpha(TIMES)[:, None], schedule.sigma(TIMES)[:, None]
    state = alpha * source + sigma * target
    velocity = schedule.d_alpha(TIMES)[:, None] * source + schedule.d_sigma(TIMES)[:, None] * target
    recovered = schedule.recover_target(state=state, velocity=velocity, source=source, t=TIMES)
    torch.testing.assert_close(recovered, target, rtol=1e-6, atol=1e-9)


def test_rectified_flow_is_the_straight_line() -> None:
    schedule = get_schedule("rectified")
    assert schedule.alpha(TIMES).tolist() == TIMES.tolist()
    torch.testing.assert_close(schedule.alpha(TIMES) + schedule.sigma(TIMES), torch.ones_like(TIMES))


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match="unknown schedule 'cosine'; known: rectified"):
        get_schedule("cosine")
