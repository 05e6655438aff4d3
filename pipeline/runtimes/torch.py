"""PyTorch in eager mode."""

import torch
from torch import nn

from pipeline.metrics import Logits
from pipeline.runtimes.base import Images


class TorchRuntime:
    """A network in eval mode on ``device``."""

    def __init__(self, network: nn.Module, *, device: torch.device) -> None:
        self.network = network.eval().to(device)
        self.device = device

    def run(self, images: Images) -> Logits:
        """Return logits (B, num_classes)."""
        with torch.inference_mode():
            return self.network(torch.from_numpy(images).to(self.device)).cpu().numpy()  # type: ignore[no-any-return]

    def describe(self) -> str:
        """Return runtime, version, device and threads in words."""
        device = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "CPU"
        return f"PyTorch {torch.__version__} eager, {device}, {torch.get_num_threads()} CPU threads"
