"""Rewritings of a flow with a fixed number of steps: the same function, in a smaller graph.

They hold for rectified flow, where a step is Z <- Z - g(Z + e(t)) / K and the output T(Z_K) for a linear T: the mean
over the steps of T(X_S - v_i) is T(X_S - mean_i v_i). Here are those of a meta-encoder as wide as the states; for one
with a width of its own see ``models.narrow_flow``.
"""

import copy
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from .core.calling import call
from .core.tensors import require_shape
from .encoder_bodies.mlp import ChannelLayerNorm
from .flow import FixedFlow, FlowTransfer
from .flow_paths.rectified import RectifiedFlow
from .layers.shape_transform import LogitTransform
from .meta_encoder import MetaEncoder


class FoldedFlow(FixedFlow):
    """A rectified flow of ``num_steps`` steps with all that the steps alone decide in its weights.

    The states are W_k = Z_k + e(t_k). The last layer of the meta-encoder is affine, so that its weight takes -1 / K and
    its bias e(t_{k+1}) - e(t_k): a step is W <- W + g_k(W), and the output one head on the final state.
    """

    start: Tensor
    """e(1), (C, 1, 1)."""

    def __init__(self, flow: FlowTransfer, num_steps: int) -> None:
        super().__init__()
        encoder = flow.velocity
        assert isinstance(encoder, MetaEncoder)
        self.channels = encoder.channels
        self.transform = flow.transform
        with torch.no_grad():
            shifts = [step.shift.flatten() for step in encoder.condition_steps(num_steps)]  # (C,) each
            differences = [after - before for before, after in pairwise([*shifts, torch.zeros_like(shifts[0])])]
            self.register_buffer("start", shifts[0][:, None, None])  # (C, 1, 1)
            self.inner = encoder.body[:-1]
            self.tails = nn.ModuleList(_rescaled(encoder.body[-1], -1 / num_steps, differences))

    def final_state(self, x: Tensor) -> Tensor:
        """Return the last state of the chain from ``x``, shaped like ``x`` (B, C, H, W)."""
        return self._state_after(len(self.tails), x)

    def forward(self, x: Tensor) -> Tensor:
        """Return T(Z_K), shaped like the teacher's (B, ...)."""
        return call(self.transform, self.final_state(x))

    def _state_after(self, count: int, x: Tensor) -> Tensor:
        require_shape("x", x, "B", self.channels, "H", "W")
        state = x + self.start
        for tail in self.tails[:count]:
            state = state + tail(self.inner(state))
        return state


FOLDED_FOR_SIZE = "the flow was folded for this size: fold it again for another"


class TapsTransform(nn.Module):
    """A convolution, pooling and a linear classifier as one: features (B, C, H, W) to logits (B, num_classes).

    The mean over positions of a convolution is linear in the sums of its input over the windows that each of its taps
    sees, of which there are as many as taps.

    Args:
        layer: the convolution, whose output is as large as its input; its bias is left out.
        linear: the classifier; its bias is left out.
        size: height and width of the features.
    """

    masks: Tensor
    """(H * W, kh * kw)."""

    def __init__(self, layer: nn.Conv2d, linear: nn.Linear, size: Sequence[int]) -> None:
        super().__init__()
        dense = _dense_weight(layer)  # (C, C, kh, kw)
        masks = _tap_masks(layer, size).to(dense)
        weight = torch.einsum("ko,oihw->kihw", linear.weight.detach(), dense).flatten(1)  # (classes, C * kh * kw)
        self.register_buffer("masks", masks / masks.shape[0])
        self.linear = nn.Linear(weight.shape[1], weight.shape[0], bias=False, dtype=weight.dtype)
        self.linear.weight = nn.Parameter(weight)

    def forward(self, features: Tensor) -> Tensor:
        """Return logits (B, num_classes)."""
        sums = features.flatten(2) @ self.masks  # (B, C, kh * kw)
        return call(self.linear, sums.flatten(1))


class CollapsedFlow(FoldedFlow):
    """A ``FoldedFlow`` whose last convolution is part of the classifier, since only pooling follows it.

    Args:
        feature_size: height and width of the feature map.
    """

    def __init__(self, flow: FlowTransfer, num_steps: int, feature_size: Sequence[int]) -> None:
        super().__init__(flow, num_steps)
        last, head = self.tails[-1], flow.transform
        assert isinstance(last, nn.Conv2d)
        assert isinstance(head, LogitTransform)
        self.feature_size = tuple(feature_size)
        self.last_step = TapsTransform(last, head.linear, feature_size)
        self.transform = copy.deepcopy(head)
        if last.bias is not None:
            with torch.no_grad():
                self.transform.linear.bias.add_(head.linear.weight @ last.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (B, num_classes) at the end of the chain from ``x`` (B, C, H, W).

        Raises:
            ValueError: ``x`` has another shape, at whose size the taps would see other windows.
        """
        require_shape("x", x, "B", self.channels, *self.feature_size, why=FOLDED_FOR_SIZE)
        state = self._state_after(len(self.tails) - 1, x)
        return call(self.transform, state) + call(self.last_step, self.inner(state))


def is_foldable(flow: FlowTransfer) -> bool:
    """Return whether a fixed number of steps of ``flow`` has a ``FoldedFlow`` or ``NarrowFlow`` that equals it.

    It does for rectified flow that predicts its velocity, with a linear transform and a meta-encoder whose last layer
    is affine: the projection out of its own width, a convolution, or a layer normalisation over the channels with its
    scale and shift.
    """
    if not (isinstance(flow.schedule, RectifiedFlow) and isinstance(flow.velocity, MetaEncoder)):
        return False
    if flow.predicts != "velocity":
        return False
    last = flow.velocity.body[-1]
    affine = isinstance(last, nn.Conv2d) or (isinstance(last, ChannelLayerNorm) and last.norm.elementwise_affine)
    return (affine or flow.velocity.is_narrow) and isinstance(flow.transform, LogitTransform | nn.Identity)


def is_collapsible(flow: FlowTransfer) -> bool:
    """Return whether it has a ``CollapsedFlow`` or ``CollapsedNarrowFlow`` that equals it.

    It has where the flow is foldable, pooled logits follow it, and the last layer of its meta-encoder's body is a
    convolution with zero padding whose output is as large as its input, tap by tap.
    """
    if not (is_foldable(flow) and isinstance(flow.transform, LogitTransform)):
        return False
    assert isinstance(flow.velocity, MetaEncoder)
    last = flow.velocity.body[-1]
    if not isinstance(last, nn.Conv2d) or isinstance(last.padding, str):
        return False
    same = all(2 * padding == taps - 1 for padding, taps in zip(last.padding, last.kernel_size, strict=True))
    return same and last.stride == last.dilation == (1, 1) and last.padding_mode == "zeros"


def _rescaled(last: nn.Module, scale: float, shifts: Sequence[Tensor]) -> list[nn.Module]:
    """Return, for each of ``shifts`` (C,), a layer that computes scale * last(x) + shift; they share their weight."""
    inner = last.norm if isinstance(last, ChannelLayerNorm) else last
    assert isinstance(inner, nn.Conv2d | nn.LayerNorm)
    weight = nn.Parameter(inner.weight * scale)
    bias = torch.zeros_like(shifts[0]) if inner.bias is None else inner.bias * scale
    layers = []
    for shift in shifts:
        layer = copy.deepcopy(last)
        own = layer.norm if isinstance(layer, ChannelLayerNorm) else layer
        own.weight, own.bias = weight, nn.Parameter(bias + shift)
        layers.append(layer)
    return layers


def _dense_weight(layer: nn.Conv2d) -> Tensor:
    """Return the weight (C_out, C_in, kh, kw) of ``layer`` as if it had one group."""
    weight = layer.weight.detach()
    outs, ins = weight.shape[0] // layer.groups, weight.shape[1]
    dense = weight.new_zeros(layer.out_channels, layer.in_channels, *weight.shape[2:])
    for group in range(layer.groups):
        rows, columns = slice(group * outs, (group + 1) * outs), slice(group * ins, (group + 1) * ins)
        dense[rows, columns] = weight[rows]
    return dense


def _tap_masks(layer: nn.Conv2d, size: Sequence[int]) -> Tensor:
    """Return (H * W, kh * kw): 1 where a tap of ``layer`` reads that position for some position of its output."""
    axes = []
    for length, taps, padding in zip(size, layer.kernel_size, layer.padding, strict=True):
        assert isinstance(padding, int)
        assert 2 * padding == taps - 1, "the output is as large as the input"
        outputs = torch.arange(length)[:, None] - torch.arange(taps)[None, :] + padding  # (length, taps)
        axes.append((outputs >= 0) & (outputs < length))
    rows, columns = axes
    return (rows[:, None, :, None] & columns[None, :, None, :]).flatten(0, 1).flatten(1)
