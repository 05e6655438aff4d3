"""PyTorch in eager mode."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.core.arrays import Outputs

Forward = Callable[[Tensor], Tensor | Sequence[Tensor]]
"""From images (B, 3, H, W) to one output, or to several."""


class TorchRuntime:
    """A function of images on ``device``, as a network there in eval mode is.

    Args:
        output_names: a name for each output, in their order.
    """

    def __init__(self, forward: Forward, *, output_names: Sequence[str], device: torch.device) -> None:
        self.forward = forward
        self.output_names = output_names
        self.device = device
        self.input_dtype = "float32"

    def infer(self, images: NDArray[Any]) -> Outputs:
        """Return the outputs for images (B, 3, H, W) in [0, 1]."""
        with torch.inference_mode():
            found = self.forward(torch.from_numpy(images).to(self.device))
            outputs = [found] if isinstance(found, Tensor) else found
            return {name: output.cpu().numpy() for name, output in zip(self.output_names, outputs, strict=True)}

    def describe(self) -> str:
        """Return runtime, version, device and threads in words."""
        device = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "CPU"
        return f"PyTorch {torch.__version__} eager, {device}, {torch.get_num_threads()} CPU threads"
