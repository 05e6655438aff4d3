r"""What a flow says of its teacher's likelihood: the bound of theorem 3.1 (arXiv 2402.02012), and its exact slack.

Given X_S a chain of K steps is deterministic, so that a likelihood needs noise somewhere. The reading under which the
theorem is exact, and which fits serial training and the averaged output, is a mixture over the steps. With the
estimates mu_i = T(X_T_hat_i), i = 1..K, and x = X_T in R^d:

    p_K(x | X_S) = (1/K) sum_i N(x; mu_i, s^2 I)
    -log p_K(x | X_S) <= B_K = (d/2) log(2 pi s^2) + (1 / (2 s^2)) (1/K) sum_i |x - mu_i|^2           (Jensen)
    B_K - NLL_ens = A_K = (1 / (2 s^2)) (1/K) sum_i |mu_i - mu_mean|^2,  NLL_ens = -log N(x; mu_mean, s^2 I)

B_K is the loss of FM-KT with the squared error, up to scale and constant; the mean of p_K is the output that deploys:
the slack of the bound over that ensemble is the diversity of the steps (Krogh and Vedelsby 1995). All figures are in
nats; divided by d ln 2 they are bits per dimension. Everything is computed in float64.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from .core.numbers import positive
from .core.tensors import require_filled, require_like, require_shape


class GaussianFigures(NamedTuple):
    """What a mixture over the steps says of each image's target, (B,) each, in nats."""

    bound: Tensor
    """B_K, the mean over the steps of their negative log-likelihoods."""
    mixture: Tensor
    """-log p_K(x | X_S); at most the bound."""
    ensemble: Tensor
    """NLL_ens, that of a normal distribution around the mean of the steps, which deploys."""
    diversity: Tensor
    """A_K, by which the bound exceeds that of the ensemble."""


def centred(logits: Tensor) -> Tensor:
    """Return logits (..., C) less their own mean: a constant added to all of them means nothing; d is then C - 1."""
    return logits.double() - logits.double().mean(dim=-1, keepdim=True)


def squared_errors(target: Tensor, steps: Tensor) -> Tensor:
    """Return |x - mu_i|^2 of each step and image, (K, B).

    Args:
        target: x, (B, ...).
        steps: mu_i, (K, B, ...).

    Raises:
        ValueError: shapes do not fit.
    """
    require_filled("target", target)
    require_shape("target", target, "B", "C", ...)
    _require_steps(steps, target)
    return (steps.double() - target.double()).flatten(2).square().sum(dim=2)


def _require_steps(steps: Tensor, target: Tensor) -> None:
    """Raise ValueError where ``steps`` are not (K, B, ...) for a ``target`` (B, ...)."""
    require_filled("steps", steps)
    require_shape("steps", steps, "K", *target.shape)
    if steps.device != target.device:
        raise ValueError(f"steps: got a tensor on {steps.device}; what they are compared with is on {target.device}")


def gaussian_figures(target: Tensor, steps: Tensor, *, variance: float, dims: int) -> GaussianFigures:
    """Return what a mixture of normal distributions around the ``steps`` says of the ``target``.

    Args:
        target: x, (B, ...); of logits ``centred``.
        steps: mu_i, (K, B, ...); of logits ``centred``.
        variance: s^2, from images that these are not: the mean of ``squared_errors`` over images and steps, over d.
        dims: d, the dimensions in which x can differ from mu_i.

    Raises:
        ValueError: shapes do not fit, or the variance or d is not above 0.
    """
    if not 0 < variance < math.inf or dims < 1:
        raise ValueError(f"variance, dims: got {variance:g} and {dims}; give numbers above 0")
    errors = squared_errors(target, steps)  # (K, B)
    constant = dims / 2 * math.log(2 * math.pi * variance)
    each = constant + errors / (2 * variance)  # (K, B), -log N(x; mu_i, s^2 I)
    mean = steps.double().mean(dim=0, keepdim=True)
    ensemble = constant + squared_errors(target, mean)[0] / (2 * variance)
    spread = squared_errors(mean[0], steps).mean(dim=0) / (2 * variance)
    mixture = math.log(len(steps)) - torch.logsumexp(-each, dim=0)
    return GaussianFigures(each.mean(dim=0), mixture, ensemble, spread)


class CategoricalFigures(NamedTuple):
    """What the steps say of the teacher's answer c ~ softmax(X_T), (B,) each, in nats; no temperature."""

    entropy: Tensor
    """H(p_T): no answer can cost less."""
    ensemble: Tensor
    """E[-log mean_i p_i(c)], of the mean of the steps' probabilities."""
    bound: Tensor
    """C_K = (1/K) sum_i [H(p_T) + KL(p_T || p_i)], what distillation by divergence lowers."""


def categorical_figures(teacher: Tensor, steps: Tensor) -> CategoricalFigures:
    """Return what the logits of the ``steps``, (K, B, C), say of the answers that ``teacher``, (B, C), draws.

    Raises:
        ValueError: shapes do not fit.
    """
    require_filled("teacher", teacher)
    require_shape("teacher", teacher, "B", "num_classes")
    _require_steps(steps, teacher)
    log_teacher = functional.log_softmax(teacher.double(), dim=-1)
    log_steps = functional.log_softmax(steps.double(), dim=-1)
    wanted = log_teacher.exp()
    log_mean = torch.logsumexp(log_steps, dim=0) - math.log(len(steps))
    return CategoricalFigures(
        -(wanted * log_teacher).sum(dim=-1),
        -(wanted * log_mean).sum(dim=-1),
        -(wanted * log_steps).sum(dim=-1).mean(dim=0),
    )


VelocityAt = Callable[[Tensor, float], Tensor]
"""From states (B, ...) and a time to velocities (B, ...)."""


class Carried(NamedTuple):
    """Where the continuous flow has taken a point, and how it changes volumes on the way."""

    state: Tensor
    """Z(1), (B, ...)."""
    change: Tensor
    """int_0^1 tr(dv/dZ) dt along the path, (B,)."""


def carried_to_source(
    velocity: VelocityAt, x: Tensor, *, num_steps: int = 64, generator: torch.Generator | None = None
) -> Carried:
    """Return where dZ/dt = v takes ``x`` (B, ...) from the teacher (t = 0) to the student (t = 1), by RK4.

    The trace is estimated by one Rademacher vector for each image, fixed along its path (Hutchinson 1990): exact where
    dv/dZ is diagonal, unbiased otherwise.

    Args:
        num_steps: of RK4.
        generator: of the vectors.

    Raises:
        ValueError: ``x`` is no batch of floating-point numbers, the velocity has another shape, or ``num_steps`` is
            less than 1.
    """
    positive("num_steps", num_steps)
    require_filled("x", x)
    require_shape("x", x, "B", "C", ...)
    probe = torch.randint(0, 2, x.shape, generator=generator, device=x.device).to(x) * 2 - 1

    def rates(state: Tensor, time: float) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            state = state.detach().requires_grad_()
            v = velocity(state, time)
            require_like("velocity", v, state, whose="the state's", came="returned")
            if not v.requires_grad:  # the same everywhere, which changes no volume
                return v, state.new_zeros(len(state))
            (gradient,) = torch.autograd.grad(v, state, probe, allow_unused=True, materialize_grads=True)
        return v.detach(), (gradient * probe).flatten(1).sum(dim=1)

    state, change, step = x, x.new_zeros(len(x)), 1 / num_steps
    for i in range(num_steps):
        time = i * step
        v1, d1 = rates(state, time)
        v2, d2 = rates(state + step / 2 * v1, time + step / 2)
        v3, d3 = rates(state + step / 2 * v2, time + step / 2)
        v4, d4 = rates(state + step * v3, time + step)
        state = state + step / 6 * (v1 + 2 * v2 + 2 * v3 + v4)
        change = change + step / 6 * (d1 + 2 * d2 + 2 * d3 + d4)
    return Carried(state, change)


def flow_log_likelihood(
    velocity: VelocityAt,
    x: Tensor,
    source: Tensor,
    *,
    variance: float,
    num_steps: int = 64,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Return log p_0(x | X_S) of the continuous flow, (B,), in nats (Chen et al. 2018; Grathwohl et al. 2019).

    log p_0(x | X_S) = log N(Z(1); X_S, s_1^2 I) + int_0^1 tr(dv/dZ) dt, where dZ/dt = v and Z(0) = x: the flow is taken
    back from the teacher (t = 0) to the student (t = 1); see ``carried_to_source``.

    Args:
        x: where the density is asked for, (B, ...).
        source: X_S, shaped like ``x``.
        variance: s_1^2, of the noise around the source.
        num_steps: of RK4.
        generator: of the vectors.

    Raises:
        ValueError: ``x`` and ``source`` have different shapes, between which no density is defined; the variance is
            not above 0; or as ``carried_to_source``.
    """
    if not 0 < variance < math.inf:
        raise ValueError(f"variance: got {variance}; give a finite number above 0")
    require_filled("source", source)
    require_like("x", x, source, whose="the source's")
    state, change = carried_to_source(velocity, x, num_steps=num_steps, generator=generator)
    dims = x[0].numel()
    start = -dims / 2 * math.log(2 * math.pi * variance) - (state - source).flatten(1).square().sum(dim=1) / (
        2 * variance
    )
    return start + change
