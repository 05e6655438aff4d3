"""What of ONNX Runtime computes."""

from typing import Literal, get_args

Provider = Literal["cpu", "cuda", "tensorrt"]
PROVIDER_NAMES: tuple[str, ...] = get_args(Provider)

PROOF_SECONDS = 600.0
"""That a file may take to be loaded and proved; the TensorRT provider builds its engines meanwhile."""
