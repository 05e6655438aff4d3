"""Schedules in float64: the table of their formulas, automatic differentiation and the definition of the flow."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from models.flow_paths.base import Schedule
from models.integrate import step_times
from models.schedules import SCHEDULES, get_schedule

TIMES = torch.linspace(0.0, 1.0, 41, dtype=torch.float64)
VISITED = sorted({time for num_steps in range(1, 51) for time in step_times(num_steps)})


def exponential(t: Tensor) -> Tensor:
    """Return alpha of vp."""
    return torch.exp(-19.9 * (1 - t) ** 2 / 4 - 0.1 * (1 - t) / 2)


FORMULAS: dict[str, Callable[[Tensor], tuple[Tensor, Tensor]]] = {
    "rectified": lambda t: (t, 1 - t),
    "vp": lambda t: (exponential(t), (1 - exponential(t) ** 2).sqrt()),
    "ve": lambda t: (0.02 * (100 / 0.02) ** t, t**0),
}
"""Alpha and sigma of the schedules whose formulas are known here."""
every_schedule = pytest.mark.parametrize("name", sorted(SCHEDULES))
every_known_schedule = pytest.mark.parametrize("name", sorted(FORMULAS))


def derived(name: str, times: Tensor, *, of_states: bool = False) -> list[Tensor]:
    """Return alpha, sigma and their derivatives; of the chain's states, those of ve have norm 1. vp avoids its ends."""
    t = (times.clamp(1e-3, 0.999) if name == "vp" else times).clone().requires_grad_()
    alpha, sigma = FORMULAS[name](t)
    norm = torch.hypot(alpha, sigma) if of_states and name == "ve" else 1
    weights = [alpha / norm, sigma / norm]
    return [
        *(weight.detach() for weight in weights),
        *(torch.autograd.grad(weight.sum(), t, retain_graph=True)[0] for weight in weights),
    ]


@every_known_schedule
def test_weights_and_derivatives_are_those_of_the_table(name: str) -> None:
    s = get_schedule(name)
    for function, expected in zip((s.alpha, s.sigma, s.d_alpha, s.d_sigma), derived(name, TIMES), strict=True):
        torch.testing.assert_close(function(TIMES), expected, rtol=1e-10, atol=1e-12)


@every_schedule
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(), (3,), (2, 3)])
def test_weights_are_finite_and_have_the_shape_and_type_of_the_times(
    name: str, dtype: torch.dtype, shape: tuple[int, ...]
) -> None:
    s = get_schedule(name)
    for t in (torch.full(shape, time, dtype=dtype) for time in (0.0, 0.4, 1.0)):
        for value in (s.alpha(t), s.sigma(t), s.d_alpha(t), s.d_sigma(t), s.velocity_norm(t)):
            if value is not None:
                assert (value.shape, value.dtype) == (shape, dtype)
                assert value.isfinite().all()


@pytest.mark.parametrize(
    ("name", "alpha", "sigma"),
    [
        ("rectified", [0.0, 1.0], [1.0, 0.0]),
        ("vp", [0.006637599, 0.999945027], [0.999977971, 0.010485416]),
        ("ve", [0.02, 100.0], [1.0, 1.0]),
    ],
)
def test_the_ends_of_the_path(name: str, alpha: list[float], sigma: list[float]) -> None:
    ends = TIMES[[0, -1]]
    assert get_schedule(name).alpha(ends).tolist() == pytest.approx(alpha, rel=1e-7, abs=0)
    assert get_schedule(name).sigma(ends).tolist() == pytest.approx(sigma, rel=1e-7, abs=0)


def test_vp_preserves_the_variance() -> None:
    vp = get_schedule("vp")
    torch.testing.assert_close(vp.alpha(TIMES) ** 2 + vp.sigma(TIMES) ** 2, torch.ones_like(TIMES))


@every_known_schedule
def test_weights_of_the_states_are_those_of_the_table_and_for_ve_of_norm_one(name: str) -> None:
    schedule, visited = get_schedule(name), torch.tensor(VISITED, dtype=torch.float64)
    weights = torch.tensor([schedule.weights_at(time) for time in VISITED], dtype=torch.float64)
    expected = derived(name, visited, of_states=True)
    torch.testing.assert_close(weights.T, torch.stack(expected), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(schedule.start(visited), expected[0][-1] * visited)
    norm = schedule.velocity_norm(visited)
    assert (norm is None) == (name == "rectified")
    if norm is not None:
        torch.testing.assert_close(norm, torch.hypot(*expected[2:]))


@every_schedule
def test_derivatives_are_those_of_the_weights(name: str) -> None:
    s, t = get_schedule(name), TIMES[1:-1].clone().requires_grad_()
    for weight, derivative in ((s.alpha(t), s.d_alpha(t)), (s.sigma(t), s.d_sigma(t))):
        found = torch.autograd.grad(weight.sum() + 0 * t.sum(), t)[0]  # a constant weight does not depend on t
        torch.testing.assert_close(derivative, found, rtol=1e-6, atol=1e-9)


@every_schedule
@pytest.mark.parametrize("num_steps", [1, 2, 3, 4, 8, 16, 50])
def test_the_true_velocity_recovers_the_target_at_every_step(name: str, num_steps: int) -> None:
    source, target = torch.randn(2, 5, 3, 2, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for time in step_times(num_steps):
        at_time = torch.tensor(time, dtype=torch.float64)
        is_known, own = name in FORMULAS, get_schedule(name).weights_at(time)
        alpha, sigma, d_alpha, d_sigma = derived(name, at_time, of_states=True) if is_known else own
        state, velocity = alpha * source + sigma * target, d_alpha * source + d_sigma * target
        recovered = get_schedule(name).recover_target(state=state, velocity=velocity, source=source, time=time)
        torch.testing.assert_close(recovered, target, rtol=1e-6, atol=1e-9)


def moved(schedule: Schedule, time: float, *, state: float, velocity: float) -> float:
    """Return by how much the estimate moves with errors of ``state`` and of ``velocity`` velocity norms."""
    one = torch.ones(1, dtype=torch.float64)
    norm = schedule.velocity_norm(time * one)
    error = velocity * (one if norm is None else norm)
    return schedule.recover_target(state=state * one, velocity=error, source=0 * one, time=time).abs().item()


@pytest.mark.parametrize(
    ("name", "by_state", "by_velocity", "by_both"),
    [("rectified", 0.0, 1.0, 1.0), ("vp", 1.001, 1.272, 1.678), ("ve", 1.360, 1.663, 2.347)],
)
def test_an_estimate_is_well_conditioned(name: str, by_state: float, by_velocity: float, by_both: float) -> None:
    """The largest factor, over all times visited by 1 to 50 steps, by which an error of state or velocity grows."""
    for state, velocity, bound in ((1, 0, by_state), (0, 1, by_velocity), (1, -1, by_both)):
        factors = [moved(get_schedule(name), time, state=state, velocity=velocity) for time in VISITED]
        assert max(factors) == pytest.approx(bound, abs=1e-3)


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match="unknown schedule 'cosine'; known: rectified, vp, ve"):
        get_schedule("cosine")
