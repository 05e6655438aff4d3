"""What of ONNX Runtime computes."""

from typing import Literal, get_args

Provider = Literal["cpu", "cuda", "tensorrt"]
PROVIDER_NAMES: tuple[str, ...] = get_args(Provider)
