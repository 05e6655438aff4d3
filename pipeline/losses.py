"""Metric losses L(student, teacher): pure functions of logits, computed in float32 at least."""

import torch
from torch import Tensor
from torch.nn import functional


def _at_least_float32(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


def kd_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Return T^2 KL(softmax(teacher / T) || softmax(student / T)), summed over classes, averaged over the batch.

    Source: Hinton et al. 2015. T^2 keeps the gradient's scale whatever the temperature. Logits have shape (B, C).
    """
    log_student = functional.log_softmax(_at_least_float32(student) / temperature, dim=1)
    log_teacher = functional.log_softmax(_at_least_float32(teacher) / temperature, dim=1)
    return functional.kl_div(log_student, log_teacher, reduction="batchmean", log_target=True) * temperature**2


def dist_loss(student: Tensor, teacher: Tensor, beta: float, gamma: float, temperature: float) -> Tensor:
    """Return T^2 [beta (1 - mean row correlation) + gamma (1 - mean column correlation)] of the softened probabilities.

    Source: Huang et al. 2022 (DIST). Rows correlate the classes of one image, columns the images of one class.
    Logits have shape (B, C).
    """
    p_student = functional.softmax(_at_least_float32(student) / temperature, dim=1)
    p_teacher = functional.softmax(_at_least_float32(teacher) / temperature, dim=1)
    rows = 1 - correlation(p_student, p_teacher).mean()
    columns = 1 - correlation(p_student.T, p_teacher.T).mean()
    return (beta * rows + gamma * columns) * temperature**2


def correlation(a: Tensor, b: Tensor, eps: float = 1e-6) -> Tensor:
    """Return Pearson's correlation of each row of ``a`` with the same row of ``b``, (R, M) each to (R,).

    A row whose deviations have a norm below ``eps`` has no direction: its correlation is 0, with a zero gradient, where
    the formula's own gradient grows without bound.
    """
    a = a - a.mean(dim=1, keepdim=True)
    b = b - b.mean(dim=1, keepdim=True)
    aa, bb = a.square().sum(dim=1), b.square().sum(dim=1)
    varies = (aa > eps**2) & (bb > eps**2)
    products = torch.where(varies, (a * b).sum(dim=1), 0)
    return products * aa.clamp(min=eps**2).rsqrt() * bb.clamp(min=eps**2).rsqrt()
