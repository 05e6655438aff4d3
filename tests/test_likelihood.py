"""Theorem 3.1 in float64: the bound, its slack, closed forms, and the continuous flow's likelihood."""

import math

import pytest
import torch
from torch import Tensor

from models.likelihood import (
    categorical_figures,
    centred,
    flow_log_likelihood,
    gaussian_figures,
    squared_errors,
)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("num_steps", [1, 2, 5])
@pytest.mark.parametrize("variance", [0.1, 1.0, 7.0])
def test_the_bound_exceeds_the_mixture_and_the_ensemble_by_the_diversity(num_steps: int, variance: float) -> None:
    target, steps = normal(6, 3, 2), normal(num_steps, 6, 3, 2, seed=1)
    found = gaussian_figures(target, steps, variance=variance, dims=6)
    scale = math.sqrt(variance)
    each = -torch.distributions.Normal(steps, scale).log_prob(target).flatten(2).sum(dim=2)
    torch.testing.assert_close(found.bound, each.mean(dim=0), rtol=0, atol=1e-10)
    mixture = torch.distributions.MixtureSameFamily(
        torch.distributions.Categorical(torch.ones(6, num_steps, dtype=torch.float64)),
        torch.distributions.Independent(torch.distributions.Normal(steps.flatten(2).transpose(0, 1), scale), 1),
    )
    torch.testing.assert_close(found.mixture, -mixture.log_prob(target.flatten(1)), rtol=0, atol=1e-10)
    assert (found.bound - found.mixture >= -1e-12).all()
    torch.testing.assert_close(found.bound - found.ensemble, found.diversity, rtol=0, atol=1e-10)
    if num_steps == 1:
        torch.testing.assert_close(found.mixture, found.bound)


def test_the_expected_bound_of_normal_variables_is_the_closed_form() -> None:
    dims, images, tau, variance = 4, 200_000, 0.7, 0.9
    a, b, c, e = 1.3, -0.4, (0.8, 1.1), (0.2, -0.1)
    source = normal(images, dims)
    target = a * source + b + tau * normal(images, dims, seed=1)
    steps = torch.stack([scale * source + shift for scale, shift in zip(c, e, strict=True)])
    found = gaussian_figures(target, steps, variance=variance, dims=dims).bound.mean()
    misses = [(a - scale) ** 2 + (b - shift) ** 2 + tau**2 for scale, shift in zip(c, e, strict=True)]
    expected = dims / 2 * math.log(2 * math.pi * variance) + dims / (2 * variance) * sum(misses) / 2
    assert float(found) == pytest.approx(expected, abs=0.02)


def test_the_best_variance_is_the_mean_squared_error() -> None:
    target, steps = normal(50, 3), normal(2, 50, 3, seed=1)
    best = float(squared_errors(target, steps).mean()) / 3

    def bound(variance: float) -> float:
        return float(gaussian_figures(target, steps, variance=variance, dims=3).bound.mean())

    assert bound(best) < min(bound(0.99 * best), bound(1.01 * best))


def test_a_constant_added_to_all_logits_changes_nothing() -> None:
    logits = normal(5, 7)
    torch.testing.assert_close(centred(logits + 100), centred(logits))
    assert centred(logits.float()).dtype == torch.float64


def test_the_categorical_bound_lies_above_the_ensemble_and_that_above_the_entropy() -> None:
    teacher, steps = 3 * normal(9, 5), 3 * normal(4, 9, 5, seed=1)
    found = categorical_figures(teacher, steps)
    p, q = teacher.softmax(dim=1), steps.softmax(dim=2)
    divergences = (p * (p.log() - q.log())).sum(dim=2)
    torch.testing.assert_close(found.entropy, torch.distributions.Categorical(logits=teacher).entropy())
    torch.testing.assert_close(found.bound, (found.entropy + divergences).mean(dim=0))
    torch.testing.assert_close(found.ensemble, -(p * q.mean(dim=0).log()).sum(dim=1))
    assert (found.bound >= found.ensemble - 1e-12).all()
    assert (found.ensemble >= found.entropy - 1e-12).all()
    same = categorical_figures(teacher, teacher[None])
    torch.testing.assert_close(same.bound, same.entropy)


def test_the_likelihood_of_the_true_flow_between_normal_variables_is_theirs_to_fourth_order() -> None:
    dims, m0, m1, s0, s1 = 6, 0.5, -1.0, 0.6, 1.4

    def velocity(z: Tensor, t: float) -> Tensor:
        gain = (t * s1**2 - (1 - t) * s0**2) / (t**2 * s1**2 + (1 - t) ** 2 * s0**2)
        return (m1 - m0) + gain * (z - t * m1 - (1 - t) * m0)

    x = m0 + s0 * normal(8, dims)
    source = torch.full_like(x, m1)
    expected = torch.distributions.Normal(source.new_tensor(m0), source.new_tensor(s0)).log_prob(x).sum(dim=1)
    errors = []
    for num_steps in (16, 64, 256):
        found = flow_log_likelihood(velocity, x, source, variance=s1**2, num_steps=num_steps)
        errors.append(float((found - expected).abs().max()))
    assert errors[0] < 1e-4
    assert errors[1] < errors[0] / 150
    assert errors[2] < errors[1] / 150


def test_a_linear_flow_that_mixes_dimensions_has_the_likelihood_of_its_map() -> None:
    matrix = 0.3 * normal(3, 3)
    x, source, variance = normal(4, 3, seed=1), normal(4, 3, seed=2), 0.8
    estimates = []
    for seed in range(400):
        generator = torch.Generator().manual_seed(seed)
        estimates.append(
            flow_log_likelihood(
                lambda z, _: z @ matrix.T, x, source, variance=variance, num_steps=16, generator=generator
            )
        )
    there = x @ torch.linalg.matrix_exp(matrix).T
    density = torch.distributions.Normal(source, math.sqrt(variance)).log_prob(there).sum(dim=1) + matrix.trace()
    torch.testing.assert_close(torch.stack(estimates).mean(dim=0), density, rtol=0, atol=0.12)


def test_shapes_that_do_not_fit_are_named() -> None:
    with pytest.raises(ValueError, match=r"steps: got the shape \(2, 4, 3\); give \(K, 5, 3\)"):
        gaussian_figures(normal(5, 3), normal(2, 4, 3), variance=1.0, dims=3)
    with pytest.raises(ValueError, match="variance, dims: got 0 and 3"):
        gaussian_figures(normal(5, 3), normal(2, 5, 3), variance=0.0, dims=3)
    with pytest.raises(ValueError, match=r"x: got the shape \(2, 3\); the source's is \(2, 4\)"):
        flow_log_likelihood(lambda z, _: z, normal(2, 3), normal(2, 4), variance=1.0)
