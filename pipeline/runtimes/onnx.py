"""ONNX Runtime on the CPU."""

from pathlib import Path

import onnxruntime

from pipeline.errors import UserError
from pipeline.metrics import Logits
from pipeline.runtimes.base import Images

PROVIDER = "CPUExecutionProvider"


class OnnxRuntime:
    """A session over the ONNX file ``path``.

    Raises:
        UserError: the file is missing or no valid model.
    """

    def __init__(self, path: Path, *, num_threads: int) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = num_threads
        options.inter_op_num_threads = 1
        try:
            self.session = onnxruntime.InferenceSession(str(path), options, providers=[PROVIDER])
        except Exception as error:  # its exceptions share no public base class
            if type(error).__module__.startswith("onnxruntime"):
                raise UserError(f"{path}: ONNX Runtime cannot load it ({error}); run export_onnx again") from error
            raise
        self.num_threads = num_threads

    def run(self, images: Images) -> Logits:
        """Return logits (B, num_classes)."""
        return self.session.run(["logits"], {"image": images})[0]  # type: ignore[no-any-return]

    def describe(self) -> str:
        """Return runtime, version, provider and threads in words."""
        provider = self.session.get_providers()[0]
        return f"ONNX Runtime {onnxruntime.__version__}, {provider}, {self.num_threads} CPU threads"
