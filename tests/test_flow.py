"""The Euler chain and the flow in float64, against closed forms."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from models.deploy import UnrolledFlow, fold
from models.flow import FlowTransfer, build_logit_flow, start_at_rest
from models.folding import is_foldable
from models.integrate import Velocity, euler, step_times
from models.layers.shape_transform import LogitTransform
from models.meta_encoder import MetaEncoder
from models.meta_encoders import META_ENCODERS, build_meta_encoder
from models.schedules import SCHEDULES, get_schedule

every_schedule = pytest.mark.parametrize("schedule", sorted(SCHEDULES))


class TrueVelocity:
    """dZ/dt of the path of ``schedule`` between two known ends; notes the times at which it is asked."""

    def __init__(self, schedule: str) -> None:
        self.schedule = get_schedule(schedule)
        self.source, self.target = random_maps(2)
        self.times: list[float] = []

    def state(self, time: float) -> Tensor:
        weights = self.schedule.weights_at(time)
        return weights.alpha * self.source + weights.sigma * self.target

    def __call__(self, *, x: Tensor, t: Tensor) -> Tensor:
        assert (t.shape, t.dtype) == ((len(x),), x.dtype)
        (time,) = set(t.tolist())
        self.times.append(time)
        weights = self.schedule.weights_at(time)
        return weights.d_alpha * self.source + weights.d_sigma * self.target


def random_maps(*shape: int) -> Tensor:
    return torch.randn(*shape, 3, 4, 2, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def swirl(*, x: Tensor, t: Tensor) -> Tensor:
    """Return a velocity that is neither constant nor linear."""
    return torch.sin(3 * x + t[:, None, None, None])


def make_flow(velocity: Velocity, schedule: str, transform: nn.Module | None = None) -> FlowTransfer:
    return FlowTransfer(velocity=velocity, schedule=get_schedule(schedule), transform=transform or nn.Identity())


@pytest.mark.parametrize("num_steps", [1, 2, 3, 7, 8, 50])
def test_the_true_velocity_of_the_straight_path_leads_to_the_target_and_tells_it_at_every_step(num_steps: int) -> None:
    truth = TrueVelocity("rectified")
    path = make_flow(truth, "rectified").trajectory(truth.source, num_steps)
    assert (len(path.states), len(path.velocities), len(path.estimates)) == (num_steps + 1, num_steps, num_steps)
    assert torch.equal(path.states[0], truth.source)
    for end in (path.states[-1], *path.estimates):
        torch.testing.assert_close(end, truth.target, rtol=1e-12, atol=1e-12)
    assert truth.times == step_times(num_steps) == [1 - i / num_steps for i in range(num_steps)]


@pytest.mark.parametrize("schedule", ["vp", "ve"])
def test_euler_on_a_curved_path_errs_half_as_much_with_twice_the_steps(schedule: str) -> None:
    truth = TrueVelocity(schedule)
    ends = [euler(truth, truth.state(1.0), num_steps).states[-1] for num_steps in (64, 128, 256)]
    errors = [float((end - truth.state(0.0)).norm() / truth.target.norm()) for end in ends]
    assert errors[0] < 0.15
    assert [errors[1] / errors[0], errors[2] / errors[1]] == pytest.approx([0.5, 0.5], abs=0.06)


@pytest.mark.parametrize("num_steps", [0, -1])
def test_no_steps_are_refused(num_steps: int) -> None:
    flow = make_flow(swirl, "rectified")
    for trajectory in (lambda: euler(swirl, random_maps(), num_steps), lambda: flow(random_maps(), num_steps)):
        with pytest.raises(ValueError, match=f"num_steps: got {num_steps}; give an int of at least 1"):
            trajectory()


@every_schedule
@pytest.mark.parametrize("num_steps", [1, 3, 8])
def test_a_trajectory_and_its_mean_output_are_the_chain_written_out_with_estimates_of_least_squares(
    schedule: str, num_steps: int
) -> None:
    """For rectified flow the estimate of the velocity alone: X_S - v."""
    source, flow = random_maps(), make_flow(swirl, schedule, nn.Softmax(dim=1))
    path = flow.trajectory(source, num_steps)
    state = get_schedule(schedule).weights_at(1.0).alpha * source
    for i in range(num_steps):
        velocity = torch.sin(3 * state + 1 - i / num_steps)
        alpha, sigma, d_alpha, d_sigma = get_schedule(schedule).weights_at(1 - i / num_steps)
        equations = [(sigma, state - alpha * source), (d_sigma, velocity - d_alpha * source)]
        equations = equations[1:] if schedule == "rectified" else equations
        factors = torch.tensor([[factor] for factor, _ in equations], dtype=torch.float64)
        estimate = torch.linalg.lstsq(factors, torch.stack([rest.flatten() for _, rest in equations])).solution
        torch.testing.assert_close(path.states[i], state)
        torch.testing.assert_close(path.velocities[i], velocity)
        torch.testing.assert_close(path.estimates[i], estimate.reshape(source.shape))
        state = state - velocity / num_steps
    torch.testing.assert_close(path.states[num_steps], state)
    torch.testing.assert_close(flow.final_state(source, num_steps), state)
    torch.testing.assert_close(flow.estimates(source, num_steps), list(path.estimates))
    outputs = [estimate.softmax(dim=1) for estimate in path.estimates]
    torch.testing.assert_close(flow.step_outputs(source, num_steps), torch.stack(outputs))
    torch.testing.assert_close(flow(source, num_steps), sum(outputs) / num_steps)


@torch.no_grad()
@pytest.mark.parametrize("meta_encoder", sorted(META_ENCODERS))
@pytest.mark.parametrize("num_steps", [1, 3, 8])
def test_the_mean_of_a_linear_transform_is_the_transform_of_the_last_state(meta_encoder: str, num_steps: int) -> None:
    """mean_i T(X_S - v_i) = T(X_S - mean_i v_i) = T(Z_N): an identity of rectified flow with a linear T."""
    torch.manual_seed(0)
    encoder = build_meta_encoder(meta_encoder, 4).double()
    flow = make_flow(encoder, "rectified", LogitTransform(4, 5).double())
    last = euler(encoder, random_maps(), num_steps).states[-1]
    torch.testing.assert_close(flow(random_maps(), num_steps), flow.transform(last), rtol=1e-9, atol=1e-10)


@torch.no_grad()
@every_schedule
def test_a_built_flow_takes_any_number_of_steps_at_the_speed_of_its_schedule(schedule: str) -> None:
    torch.manual_seed(0)
    settings = {"schedule": schedule, "meta_encoder": "conv", "time_scale": 30.0}
    flow, x = build_logit_flow(channels=4, num_classes=5, **settings).double(), random_maps()
    for num_steps in (1, 2, 7, 16):
        logits = flow(x, num_steps)
        assert logits.shape == (3, 5)
        torch.testing.assert_close(UnrolledFlow(flow, num_steps)(x), logits)
    t = torch.tensor([1.0, 0.3, 0.5], dtype=torch.float64)
    norm = get_schedule(schedule).velocity_norm(t)
    plain = MetaEncoder(4, flow.velocity.body, time_scale=30.0)
    plain.time_embedding.load_state_dict(flow.velocity.time_embedding.state_dict())
    factor = 1 if norm is None else norm[:, None, None, None]
    torch.testing.assert_close(flow.velocity(x=x, t=t), factor * plain.double()(x=x, t=t))


@pytest.mark.parametrize("schedule", ["rectified", "ve", "vp"])
def test_mixed_precision_leaves_times_and_velocities_finite(schedule: str) -> None:
    torch.manual_seed(0)
    flow = build_logit_flow(channels=8, num_classes=3, schedule=schedule, meta_encoder="conv", time_scale=1.0)
    x = torch.randn(2, 8, 4, 4)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        half = flow(x.bfloat16(), 4)
    with torch.no_grad():
        torch.testing.assert_close(half.float(), flow(x, 4), rtol=0.1, atol=0.1)


@every_schedule
@pytest.mark.parametrize("num_steps", [1, 4])
def test_a_flow_that_predicts_its_target_moves_as_one_that_predicts_the_velocity_to_it(
    schedule: str, num_steps: int
) -> None:
    true = TrueVelocity(schedule)
    parts: Any = {"schedule": true.schedule, "transform": nn.Identity()}
    by_target = FlowTransfer(velocity=Constant(true.target), predicts="target", **parts)
    found = by_target.trajectory(true.source, num_steps)
    expected = FlowTransfer(velocity=true, **parts).trajectory(true.source, num_steps)
    for one, other in zip(found.states, expected.states, strict=True):
        torch.testing.assert_close(one, other)
    for estimate in found.estimates:
        torch.testing.assert_close(estimate, true.target)
    if schedule == "rectified":
        torch.testing.assert_close(found.states[-1], true.target)


class Constant:
    """Says the same of every state."""

    def __init__(self, said: Tensor) -> None:
        self.said = said

    def __call__(self, *, x: Tensor, t: Tensor) -> Tensor:
        assert len(x) == len(t) == len(self.said)
        return self.said


def test_a_flow_that_predicts_its_target_has_its_general_form_alone_and_does_not_rest() -> None:
    names: Any = {"schedule": "rectified", "meta_encoder": "conv", "time_scale": 1.0}
    flow, x = build_logit_flow(channels=4, num_classes=3, predicts="target", **names).double(), random_maps()
    assert not is_foldable(flow)
    with torch.no_grad():
        torch.testing.assert_close(fold(flow, 3, (2, 2))(x), flow(x, 3))
    with pytest.raises(ValueError, match="predicts its target, which does not rest"):
        start_at_rest(flow)
    with pytest.raises(ValueError, match="predicts: got 'noise'; give velocity or target"):
        build_logit_flow(channels=4, num_classes=3, predicts="noise", **names)
