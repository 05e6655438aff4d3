"""Metric losses against independent derivations in numpy, and at the edges."""

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.distillation import LOSSES
from pipeline.losses import dist_loss, kd_loss

SETTINGS = {"kd": {"temperature": 4.0}, "dist": {"beta": 2.0, "gamma": 0.5, "temperature": 1.5}}


def logits(seed: int, *shape: int) -> Tensor:
    return torch.randn(*(shape or (6, 5)), generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 3


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def test_kd_is_the_temperature_scaled_divergence() -> None:
    student, teacher = logits(0), logits(1)
    p, q = softmax(teacher.numpy() / 4), softmax(student.numpy() / 4)
    expected = 16 * (p * (np.log(p) - np.log(q))).sum(axis=1).mean()
    assert kd_loss(student, teacher, 4.0).item() == pytest.approx(expected, rel=1e-12)


def test_dist_is_made_of_row_and_column_correlations() -> None:
    student, teacher = logits(0), logits(1)
    p, q = softmax(student.numpy() / 1.5), softmax(teacher.numpy() / 1.5)
    rows = 1 - np.mean([np.corrcoef(a, b)[0, 1] for a, b in zip(p, q, strict=True)])
    columns = 1 - np.mean([np.corrcoef(a, b)[0, 1] for a, b in zip(p.T, q.T, strict=True)])
    expected = (2 * rows + 0.5 * columns) * 1.5**2
    assert dist_loss(student, teacher, 2.0, 0.5, 1.5).item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_equal_logits_cost_nothing(name: str) -> None:
    assert LOSSES[name](logits(0), logits(0), **SETTINGS[name]).item() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_a_shift_of_an_images_logits_changes_nothing(name: str) -> None:
    student, teacher = logits(0), logits(1)
    shifted = student + torch.arange(6, dtype=torch.float64)[:, None]
    expected = LOSSES[name](student, teacher, **SETTINGS[name])
    torch.testing.assert_close(LOSSES[name](shifted, teacher, **SETTINGS[name]), expected)


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_gradients_agree_with_finite_differences(name: str) -> None:
    student = logits(0).requires_grad_()
    assert torch.autograd.gradcheck(lambda s: LOSSES[name](s, logits(1), **SETTINGS[name]), student)


@pytest.mark.parametrize("name", sorted(LOSSES))
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_extreme_logits_stay_finite(name: str, dtype: torch.dtype) -> None:
    extreme = torch.tensor([[1e4, -1e4, 0.0], [-1e4, 1e4, 1e4], [0.0, 0.0, 0.0]], dtype=dtype, requires_grad=True)
    loss = LOSSES[name](extreme, extreme.detach().flip(0), **SETTINGS[name])
    loss.backward()
    assert loss.dtype == torch.float32
    assert torch.isfinite(loss)
    assert torch.isfinite(extreme.grad).all()  # type: ignore[arg-type]
