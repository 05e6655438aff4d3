"""Rewritings of a flow whose meta-encoder has a width of its own: the same function, computed in that width.

They hold for rectified flow. With the velocity v = U g(D Z + e(t)) a step changes the states by U alone, so that the
chain can be followed in W_k = D Z_k + e(t_k), of R channels instead of C:

    W_{k+1} = W_k - D U g(W_k) / K + e(t_{k+1}) - e(t_k),        Z_K = X_S - U sum_k g(W_k) / K

D is computed once, U once, and neither asks anything of g. Before pooled logits U is no work at all: pooling and a 1x1
convolution can change places, so that A pool(Z_K) = A pool(X_S) - (A U / K) pool(sum_k g(W_k)).
"""

import copy
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from .core.calling import call
from .core.tensors import require_shape
from .flow import FixedFlow, FlowTransfer
from .folding import FOLDED_FOR_SIZE, TapsTransform
from .layers.shape_transform import LogitTransform
from .meta_encoder import MetaEncoder


class NarrowFlow(FixedFlow):
    """A rectified flow of ``num_steps`` steps that follows the chain in the width of its meta-encoder."""

    def __init__(self, flow: FlowTransfer, num_steps: int) -> None:
        super().__init__()
        encoder = flow.velocity
        assert isinstance(encoder, MetaEncoder)
        down, up = encoder.project_in, encoder.project_out
        assert isinstance(down, nn.Conv2d)
        assert isinstance(up, nn.Conv2d)
        self.channels = encoder.channels
        self.transform = flow.transform
        self.body = encoder.body
        with torch.no_grad():
            shifts = [step.shift.flatten() for step in encoder.condition_steps(num_steps)]  # (R,) each
            lift = -up.weight.flatten(1) / num_steps  # (C, R)
            step = nn.Parameter((down.weight.flatten(1) @ lift)[:, :, None, None])  # (R, R, 1, 1), for all steps
            self.enter = _pointwise(nn.Parameter(down.weight), shifts[0])
            self.steps = nn.ModuleList(_pointwise(step, after - before) for before, after in pairwise(shifts))
            self.leave = _pointwise(nn.Parameter(lift[:, :, None, None]))
            if isinstance(flow.transform, LogitTransform):
                classifier = flow.transform.linear
                weight = classifier.weight @ lift  # (classes, R)
                self.classify = nn.Linear(up.in_channels, classifier.out_features, bias=False, device=weight.device)
                self.classify.weight = nn.Parameter(weight)

    def final_state(self, x: Tensor) -> Tensor:
        """Return the last state of the chain from ``x``, shaped like ``x`` (B, C, H, W)."""
        velocities, last = self._steps_from(x)
        return x + call(self.leave, sum(velocities, call(self.body, last)))

    def forward(self, x: Tensor) -> Tensor:
        """Return T(Z_K), shaped like the teacher's (B, ...)."""
        if not isinstance(self.transform, LogitTransform):
            return call(self.transform, self.final_state(x))
        velocities, last = self._steps_from(x)
        pooled = sum(velocities, call(self.body, last)).mean(dim=(2, 3))  # (B, R)
        return call(self.transform, x) + call(self.classify, pooled)

    def _steps_from(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        """Return g(W_k) of all steps but the last, and the W_k of the last, (B, R, H, W) each."""
        require_shape("x", x, "B", self.channels, "H", "W")
        state, velocities = call(self.enter, x), []
        for step in self.steps:
            velocities.append(call(self.body, state))
            state = state + step(velocities[-1])
        return velocities, state


class CollapsedNarrowFlow(NarrowFlow):
    """A ``NarrowFlow`` whose last convolution is part of the classifier too, since only pooling follows it.

    Args:
        feature_size: height and width of the feature map.
    """

    def __init__(self, flow: FlowTransfer, num_steps: int, feature_size: Sequence[int]) -> None:
        super().__init__(flow, num_steps)
        last = self.body[-1]
        assert isinstance(last, nn.Conv2d)
        self.feature_size = tuple(feature_size)
        self.inner = self.body[:-1]
        self.last_step = TapsTransform(last, self.classify, feature_size)
        self.transform = copy.deepcopy(flow.transform)
        if last.bias is not None:
            assert isinstance(self.transform, LogitTransform)
            with torch.no_grad():
                self.transform.linear.bias.add_(self.classify.weight @ last.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (B, num_classes) at the end of the chain from ``x`` (B, C, H, W).

        Raises:
            ValueError: ``x`` has another shape, at whose size the taps would see other windows.
        """
        require_shape("x", x, "B", self.channels, *self.feature_size, why=FOLDED_FOR_SIZE)
        velocities, last = self._steps_from(x)
        logits = call(self.transform, x) + call(self.last_step, call(self.inner, last))
        if not velocities:
            return logits
        pooled = sum(velocities[1:], velocities[0]).mean(dim=(2, 3))  # (B, R)
        return logits + call(self.classify, pooled)


def _pointwise(weight: nn.Parameter, bias: Tensor | None = None) -> nn.Conv2d:
    """Return the 1x1 convolution of ``weight`` (C_out, C_in, 1, 1) itself and ``bias`` (C_out,)."""
    out, channels = weight.shape[:2]
    layer = nn.Conv2d(channels, out, 1, bias=bias is not None, device=weight.device)
    layer.weight = weight
    if bias is not None:
        layer.bias = nn.Parameter(bias)
    return layer
