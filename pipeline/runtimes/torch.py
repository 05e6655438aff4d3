"""PyTorch in eager mode."""

from collections.abc import Callable
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.tasks.classification.metrics import Logits


class TorchRuntime:
    """A function of images (B, 3, H, W) on ``device``, as a network there in eval mode is."""

    def __init__(self, forward: Callable[[Tensor], Tensor], *, device: torch.device) -> None:
        self.forward = forward
        self.device = device
        self.input_dtype = "float32"

    def infer(self, images: NDArray[Any]) -> Logits:
        """Return logits (B, num_classes)."""
        with torch.inference_mode():
            return self.forward(torch.from_numpy(images).to(self.device)).cpu().numpy()

    def describe(self) -> str:
        """Return runtime, version, device and threads in words."""
        device = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "CPU"
        return f"PyTorch {torch.__version__} eager, {device}, {torch.get_num_threads()} CPU threads"
