"""A way round a fault of oneDNN, which computes PyTorch's convolutions on CPUs.

On CPUs with AVX-512 the gradient of a 1x1 convolution with a stride and few channels writes past its memory where the
feature map is large and lies channels last, which ends the process: 8 to 16 channels from 49 x 49 on, 12 to 24 from
96 x 96 on; 16 to 32 are fine (PyTorch 2.14.1). A 1x1 convolution with a stride reads every stride-th pixel alone, so a
convolution without a stride of those pixels computes the same, in the forward pass to the bit.
"""

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional

FEW_CHANNELS = 16
"""So many of the input are safe."""
SMALL_MAP = 48 * 48
"""So many pixels are safe with any number of channels."""


@contextlib.contextmanager
def strides_taken_first(network: nn.Module, device: torch.device) -> Iterator[None]:
    """Let the strided 1x1 convolutions of ``network`` with few channels read the pixels that count, on a CPU."""
    changed = [*_strided(network)] if device.type == "cpu" else []
    for convolution in changed:
        convolution.forward = _Subsampling(convolution)  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        for convolution in changed:
            del convolution.forward  # the class's own shows again


def _strided(network: nn.Module) -> Iterator[nn.Conv2d]:
    for module in network.modules():
        if (
            type(module) is nn.Conv2d
            and module.kernel_size == (1, 1)
            and module.stride != (1, 1)
            and module.padding == (0, 0)
            and module.groups == 1
            and module.in_channels < FEW_CHANNELS
        ):
            yield module


class _Subsampling:
    """The forward of a strided 1x1 convolution."""

    def __init__(self, convolution: nn.Conv2d) -> None:
        self.convolution = convolution

    def __call__(self, x: Tensor) -> Tensor:
        """Return the convolution of ``x`` (B, C, H, W)."""
        own = self.convolution
        if x.shape[-2] * x.shape[-1] <= SMALL_MAP:
            return functional.conv2d(x, own.weight, own.bias, own.stride)
        rows, columns = own.stride
        return functional.conv2d(x[..., ::rows, ::columns], own.weight, own.bias)
