"""Metric losses L(student, teacher): pure functions of logits or feature maps, computed in float32 at least.

The student's tensor may have leading dimensions beyond those named, one entry for each sampling step: the teacher's
serves them all, and the loss is the mean over them. Defaults are the settings that the losses' authors give for CIFAR.

What has another shape or type is a ValueError with the argument's name, what came and what is taken.
"""

import inspect
import math
from collections.abc import Callable, Mapping
from types import EllipsisType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from .core.numbers import share
from .core.precision import at_least_float32
from .core.tensors import require_filled, require_labels, require_scalar, require_shape

NO_LABEL = torch.iinfo(torch.int64).min
"""In the place of -100, the label that PyTorch leaves out unless told otherwise."""


def _require_pair(student: Any, teacher: Any, *sizes: str | EllipsisType) -> None:
    """Raise ValueError where ``teacher`` has no shape of ``sizes``, or the last dimensions of ``student`` are others.

    So nothing is broadcast but the teacher, over the student's leading dimensions.
    """
    require_filled("student", student)
    require_filled("teacher", teacher)
    require_shape("teacher", teacher, *sizes)
    if student.device != teacher.device:
        raise ValueError(f"teacher: got a tensor on {teacher.device}; the student's is on {student.device}")
    if student.shape[max(student.dim() - teacher.dim(), 0) :] != teacher.shape:
        raise ValueError(f"teacher: got the shape {tuple(teacher.shape)}; the student's is {tuple(student.shape)}")


def _require_logits(student: Any, teacher: Any, temperature: float) -> None:
    """Raise ValueError where the logits are no pair (B, C), or the temperature is not above 0."""
    _require_pair(student, teacher, "B", "num_classes")
    if not 0 < temperature < math.inf:
        raise ValueError(f"temperature: got {temperature}; give a finite number above 0")


def kd_loss(student: Tensor, teacher: Tensor, temperature: float = 4.0) -> Tensor:
    """Return T^2 KL(softmax(teacher / T) || softmax(student / T)), summed over classes, averaged over the batch.

    Source: Hinton et al. 2015. T^2 keeps the gradient's scale whatever the temperature. Logits have shape (B, C).
    """
    _require_logits(student, teacher, temperature)
    log_student = functional.log_softmax(at_least_float32(student) / temperature, dim=-1)
    log_teacher = functional.log_softmax(at_least_float32(teacher) / temperature, dim=-1)
    return _divergence(log_student, log_teacher) * temperature**2


def _divergence(log_student: Tensor, log_teacher: Tensor) -> Tensor:
    """Return KL(teacher || student) of log-probabilities (..., C), averaged over all but the last dimension.

    A class that the teacher rules out, by a logit of minus infinity, has no share in it: 0 log 0 is 0.
    """
    terms = log_teacher.exp() * (log_teacher - log_student)
    return terms.masked_fill(log_teacher.isneginf(), 0).sum(dim=-1).mean()


def dkd_loss(
    student: Tensor,
    teacher: Tensor,
    target: Tensor,
    alpha: float = 1.0,
    beta: float = 2.0,
    temperature: float = 4.0,
) -> Tensor:
    """Return T^2 (alpha TCKD + beta NCKD), batch mean: decoupled distillation (Zhao et al. 2022).

    TCKD is the divergence of (target class, all others), NCKD that of the classes among the others. Logits have shape
    (B, C), ``target`` holds the labels, int64 (B,); of their range see ``step_cross_entropy``.
    """
    _require_logits(student, teacher, temperature)
    require_labels("target", target, student)
    if student.shape[-1] < 2:
        raise ValueError("student: got logits of 1 class, beside which there is no other; give those of 2 or more")
    scaled_student = at_least_float32(student) / temperature
    scaled_teacher = at_least_float32(teacher) / temperature
    binary = _divergence(
        _log_target_and_rest(scaled_student, target),
        _log_target_and_rest(scaled_teacher, target),
    )
    others = _divergence(
        functional.log_softmax(_without_target(scaled_student, target), dim=-1),
        functional.log_softmax(_without_target(scaled_teacher, target), dim=-1),
    )
    return (alpha * binary + beta * others) * temperature**2


def _without_target(logits: Tensor, target: Tensor) -> Tensor:
    """Return the logits (..., B, C - 1) of all classes but each row's target."""
    columns = torch.arange(logits.shape[-1] - 1, device=logits.device)
    return _gathered(logits, columns + (columns >= target[:, None]).long())


def _gathered(logits: Tensor, columns: Tensor) -> Tensor:
    """Return the given ``columns`` (B, M) of each row of ``logits`` (..., B, C), (..., B, M)."""
    return logits.gather(-1, columns.expand(*logits.shape[:-1], columns.shape[-1]))


def _log_target_and_rest(logits: Tensor, target: Tensor) -> Tensor:
    """Return [log p_target, log (1 - p_target)] for each row, (..., B, 2), without taking 1 - p."""
    rest = _without_target(logits, target).logsumexp(dim=-1, keepdim=True)  # (..., B, 1)
    return functional.log_softmax(torch.cat([_gathered(logits, target[:, None]), rest], dim=-1), dim=-1)


def dist_loss(
    student: Tensor, teacher: Tensor, beta: float = 2.0, gamma: float = 2.0, temperature: float = 1.0
) -> Tensor:
    """Return T^2 [beta (1 - mean row correlation) + gamma (1 - mean column correlation)] of the softened probabilities.

    Source: Huang et al. 2022 (DIST). Rows correlate the classes of one image, columns the images of one class.
    Logits have shape (B, C).
    """
    _require_logits(student, teacher, temperature)
    p_student = functional.softmax(at_least_float32(student) / temperature, dim=-1)
    p_teacher = functional.softmax(at_least_float32(teacher) / temperature, dim=-1)
    rows = 1 - correlation(p_student, p_teacher).mean()
    columns = 1 - correlation(p_student.mT, p_teacher.mT).mean()
    return (beta * rows + gamma * columns) * temperature**2


def pkd_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the mean over the channels of 1 - Pearson's correlation over batch, height and width.

    Source: Cao et al. 2022 (PKD). It equals half the mean squared error of features standardised per channel. Feature
    maps have shape (B, C, H, W).
    """
    _require_pair(student, teacher, "B", "C", "H", "W")
    rows_student = at_least_float32(student).transpose(-4, -3).flatten(-3)  # (..., C, B * H * W)
    rows_teacher = at_least_float32(teacher).transpose(-4, -3).flatten(-3)
    return 1 - correlation(rows_student, rows_teacher).mean()


def mse_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the mean squared difference; logits or feature maps of one shape."""
    _require_pair(student, teacher, "B", ...)
    return (at_least_float32(student) - at_least_float32(teacher)).square().mean()


def step_cross_entropy(logits: Tensor, labels: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Return the mean cross-entropy of logits (..., B, C), each leading entry with the same ``labels``, int64 (B,).

    Labels on the CPU must name one of the C classes; those on a GPU are not read, for which training would wait. There
    one out of range ends the process by PyTorch's own assertion, -100 like any other: none is left out.

    Raises:
        ValueError: logits or labels have another shape or type, or a label on the CPU names no class.
    """
    require_filled("logits", logits)
    require_shape("logits", logits, ..., "B", "num_classes")
    require_labels("labels", labels, logits)
    smoothing = share("label_smoothing", label_smoothing)
    wanted = labels.expand(logits.shape[:-1]).reshape(-1)
    flat = logits.reshape(-1, logits.shape[-1])
    return functional.cross_entropy(flat, wanted, ignore_index=NO_LABEL, label_smoothing=smoothing)


LOGIT_LOSSES: dict[str, Callable[..., Tensor]] = {"kd": kd_loss, "dkd": dkd_loss, "dist": dist_loss, "mse": mse_loss}
"""What compares logits."""
FEATURE_LOSSES: dict[str, Callable[..., Tensor]] = {"pkd": pkd_loss, "mse": mse_loss}
"""What compares feature maps."""


class Comparison(nn.Module):
    """What compares student and teacher, a function or a module, as one that takes the labels of the batch as well.

    A function of two arguments is called with the student's and the teacher's tensors; one of three takes the labels as
    its third, and one whose third or later argument is called ``target`` gets them by that name. The weights of a
    module are part of this one.
    """

    def __init__(self, loss: Callable[..., Tensor]) -> None:
        super().__init__()
        self.loss = loss
        arguments = inspect.signature(loss.forward if isinstance(loss, nn.Module) else loss).parameters.values()
        positional = {inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD}
        ordered = [one for one in arguments if one.kind in positional]
        self.names_labels = any(one.name == "target" for one in arguments if one not in ordered[:2])
        self.takes_labels = len([one for one in ordered if one.default is one.empty]) == 3

    def forward(self, student: Tensor, teacher: Tensor, labels: Any) -> Tensor:
        """Return what ``student`` (N, B, ...), of N steps, differs from ``teacher`` (B, ...) by: a scalar.

        Raises:
            ValueError: the function returned none.
        """
        if self.names_labels:
            return require_scalar("loss", self.loss(student, teacher, target=labels))
        return require_scalar("loss", self.loss(student, teacher, *([labels] if self.takes_labels else [])))


def find_loss(loss: str | Callable[..., Tensor], known: Mapping[str, Callable[..., Tensor]]) -> Comparison:
    """Return ``loss``, a function or the name of one of the ``known``, as what is called with the labels as well.

    Raises:
        ValueError: it is neither; the message lists the known names.
    """
    if isinstance(loss, str):
        if loss not in known:
            raise ValueError(f"loss: got {loss!r}; give {', '.join(known)}, or a function of two tensors")
        loss = known[loss]
    if not callable(loss) or isinstance(loss, type):
        got = f"the class {loss.__name__}" if isinstance(loss, type) else f"a {type(loss).__name__}"
        raise ValueError(f"loss: got {got}; give {', '.join(known)}, or a function of two tensors")  # noqa: TRY004
    return Comparison(loss)


def correlation(a: Tensor, b: Tensor, eps: float = 1e-6) -> Tensor:
    """Return Pearson's correlation of each row of ``a`` with the same row of ``b``, (..., M) each to (...).

    A row that is constant but for rounding has no direction: its correlation is 0, with a zero gradient, where the
    formula's own gradient grows without bound. Constant means that its deviations have a norm below ``eps``, or below
    16 units in the last place of its values.
    """
    floor_a, floor_b = _constant_below(a, eps), _constant_below(b, eps)
    a = a - a.mean(dim=-1, keepdim=True)
    b = b - b.mean(dim=-1, keepdim=True)
    aa, bb = a.square().sum(dim=-1), b.square().sum(dim=-1)
    varies = (aa > floor_a) & (bb > floor_b)
    products = torch.where(varies, (a * b).sum(dim=-1), 0)
    return products * torch.maximum(aa, floor_a).rsqrt() * torch.maximum(bb, floor_b).rsqrt()


def _constant_below(x: Tensor, eps: float) -> Tensor:
    """Return the squared norm (...) of deviations up to which a row of ``x`` (..., M) counts as constant."""
    rounding = 16 * torch.finfo(x.dtype).eps
    return eps**2 + rounding**2 * x.detach().square().sum(dim=-1)
