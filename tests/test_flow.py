"""The Euler chain and the flow in float64, against closed forms."""

import math

import pytest
import torch
from torch import Tensor, nn

from models.flow import FlowTransfer
from models.integrate import euler, step_times
from models.meta_encoders import META_ENCODERS, build_meta_encoder
from models.schedules import get_schedule
from models.shape_transform import LogitTransform
from models.time_embedding import sinusoidal_embedding


def exact_velocity(source: Tensor, target: Tensor) -> object:
    def velocity(*, x: Tensor, t: Tensor) -> Tensor:
        assert t.shape == (len(x),)
        return source - target

    return velocity


def random_pair(*shape: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    source, target = torch.randn(2, *shape, generator=generator, dtype=torch.float64)
    return source, target


@pytest.mark.parametrize("num_steps", [1, 2, 3, 8, 50])
def test_euler_on_the_true_velocity_lands_on_the_target(num_steps: int) -> None:
    source, target = random_pair(4, 3)
    chain = euler(exact_velocity(source, target), source, num_steps)  # type: ignore[arg-type]
    assert len(chain.states) == num_steps + 1
    assert len(chain.velocities) == num_steps
    torch.testing.assert_close(chain.states[-1], target, rtol=1e-12, atol=1e-12)


def test_euler_has_first_order_error_on_exponential_growth() -> None:
    """dZ/dt = Z from t = 1 to 0 ends at Z(1) / e; (1 - 1/N)^N is what N steps give."""
    start = torch.ones(1, 1, dtype=torch.float64)
    for num_steps in (1, 4, 64):
        end = euler(lambda *, x, t: x, start, num_steps).states[-1].item()  # noqa: ARG005
        assert end == pytest.approx((1 - 1 / num_steps) ** num_steps, rel=1e-12)
    assert end == pytest.approx(math.exp(-1), rel=1e-2)


def test_time_runs_from_one_downwards_and_never_reaches_zero() -> None:
    seen: list[float] = []

    def velocity(*, x: Tensor, t: Tensor) -> Tensor:
        seen.append(t[0].item())
        return torch.zeros_like(x)

    euler(velocity, torch.zeros(2, 1), 4)
    assert seen == step_times(4) == [1.0, 0.75, 0.5, 0.25]


@pytest.mark.parametrize("num_steps", [0, -1])
def test_no_steps_are_refused(num_steps: int) -> None:
    with pytest.raises(ValueError, match=f"num_steps must be at least 1, got {num_steps}"):
        euler(lambda *, x, t: x, torch.zeros(1, 1), num_steps)  # noqa: ARG005


@pytest.mark.parametrize("num_steps", [1, 2, 8])
def test_every_step_of_the_true_velocity_estimates_the_target(num_steps: int) -> None:
    source, target = random_pair(4, 3, 2, 2)
    velocity = exact_velocity(source, target)
    flow = FlowTransfer(velocity=velocity, schedule=get_schedule("rectified"), transform=nn.Identity())  # type: ignore[arg-type]
    estimates = flow.estimates(source, num_steps)
    assert len(estimates) == num_steps
    for estimate in estimates:
        torch.testing.assert_close(estimate, target, rtol=1e-6, atol=1e-12)
    torch.testing.assert_close(flow(source, num_steps), target)


@pytest.mark.parametrize("meta_encoder", sorted(META_ENCODERS))
@pytest.mark.parametrize("num_steps", [1, 3, 8])
def test_the_mean_of_a_linear_transform_is_the_transform_of_the_last_state(meta_encoder: str, num_steps: int) -> None:
    """mean_i T(X_S - v_i) = T(X_S - mean_i v_i) = T(Z_N): an identity of rectified flow with a linear T."""
    torch.manual_seed(0)
    encoder = build_meta_encoder(meta_encoder, 6).double()
    transform = LogitTransform(6, 5).double()
    flow = FlowTransfer(velocity=encoder, schedule=get_schedule("rectified"), transform=transform)
    x = torch.randn(2, 6, 4, 4, dtype=torch.float64)
    with torch.no_grad():
        last = euler(encoder, x, num_steps).states[-1]
        torch.testing.assert_close(flow(x, num_steps), transform(last), rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("meta_encoder", sorted(META_ENCODERS))
def test_a_meta_encoder_keeps_the_shape_and_depends_on_time(meta_encoder: str) -> None:
    torch.manual_seed(0)
    encoder = build_meta_encoder(meta_encoder, 6)
    x = torch.randn(3, 6, 5, 4)
    early, late = (encoder(x=x, t=torch.full((3,), time)) for time in (1.0, 0.125))
    assert early.shape == x.shape
    assert not torch.allclose(early, late)
    embedding = encoder.embed(torch.tensor([1.0]))
    torch.testing.assert_close(encoder.velocity_at(x, embedding), early)


def test_the_conv_meta_encoder_has_the_published_parameters() -> None:
    """Two 3x3 convolutions without biases, GroupNorm(1), and the time embedding's two linear layers."""
    width = 8
    expected = 2 * 9 * width**2 + 2 * width + 2 * (width**2 + width)
    assert sum(p.numel() for p in build_meta_encoder("conv", width).parameters()) == expected


def test_an_unknown_meta_encoder_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match="unknown meta-encoder 'lstm'; known: conv, mlp"):
        build_meta_encoder("lstm", 4)


@pytest.mark.parametrize("width", [1, 2, 7, 8])
def test_the_sinusoidal_embedding_follows_its_formula(width: int) -> None:
    t = torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64)
    embedding = sinusoidal_embedding(t, width)
    half = width // 2
    for row, time in enumerate(t.tolist()):
        angles = [time * 10_000 ** (-j / half) for j in range(half)]
        expected = [math.cos(a) for a in angles] + [math.sin(a) for a in angles] + [0.0] * (width % 2)
        assert embedding[row].tolist() == pytest.approx(expected, abs=1e-12)
