"""Programs in ONNX files, run by ONNX Runtime."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import torch
from onnx.external_data_helper import load_external_data_for_model, uses_external_data
from torch import Tensor

from pipeline.core.errors import UserError
from pipeline.core.printable import printable
from pipeline.networks.program import Program

LARGEST = 2**31 - 1
"""Bytes of a protobuf message, which an ONNX file is."""
DTYPES = {"tensor(float)": "float32", "tensor(float16)": "float16", "tensor(uint8)": "uint8"}


class OnnxProgram(Program):
    """A program in an ONNX file."""

    def open(self, data: bytes, device: torch.device) -> "OnnxSession":
        """Return a session of ONNX Runtime, on CUDA where ``device`` is one and ONNX Runtime can use it."""
        return OnnxSession(data, device, self.output)


class OnnxSession:
    """An ONNX file that is ready to run; see ``pipeline.networks.program.Session``."""

    def __init__(self, data: bytes, device: torch.device, output: str) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.inter_op_num_threads = 1
        options.use_deterministic_compute = True
        try:
            self.session = onnxruntime.InferenceSession(data, options, providers=_providers(device))
        except Exception as error:  # its exceptions share no public base class
            raise UserError(f"ONNX Runtime cannot load it ({' '.join(str(error).split())[:300]})") from error
        entries = self.session.get_inputs()
        if len(entries) != 1:
            raise UserError(f"takes {len(entries)} inputs ({_names(entries)}); needed is one, of images")
        self.input_name: str = entries[0].name
        self.shape: Sequence[int | None] = [size if isinstance(size, int) else None for size in entries[0].shape]
        self.dtype = DTYPES.get(entries[0].type, entries[0].type)
        entries = self.session.get_outputs()
        self.output_name = entries[0].name if len(entries) == 1 else output
        if self.output_name not in [entry.name for entry in entries]:
            raise UserError(f"returns {len(entries)} outputs ({_names(entries)}); needed is one, or one named {output}")
        weights = onnx.load_model_from_string(data).graph.initializer
        self.num_parameters = sum(math.prod(weight.dims) for weight in weights)

    def run(self, images: Tensor) -> Tensor:
        """Return the outputs of one batch."""
        try:
            (found,) = self.session.run([self.output_name], {self.input_name: images.cpu().numpy()})
        except Exception as error:  # as above
            raise UserError(f"ONNX Runtime cannot run it ({' '.join(str(error).split())[:300]})") from error
        return torch.from_numpy(found)


def read_onnx(path: Path) -> bytes:
    """Return the ONNX file ``path`` as bytes, with the weights that it keeps in other files.

    Raises:
        UserError: it is no ONNX file, or one that is too large.
    """
    files = onnx_files(path)
    if sum(file.stat().st_size for file in files) > LARGEST:
        raise UserError(f"{printable(path)}: larger than 2 GiB with its weights; take the network as exported:FILE.pt2")
    if len(files) == 1:
        return path.read_bytes()
    model = _read_graph(path)
    load_external_data_for_model(model, str(path.parent))
    for weight in model.graph.initializer:
        weight.ClearField("external_data")
        weight.data_location = onnx.TensorProto.DEFAULT
    return bytes(model.SerializeToString())


def onnx_files(path: Path) -> Sequence[Path]:
    """Return the ONNX file ``path`` and the files that its weights are in.

    Raises:
        UserError: it is no ONNX file, or a file of weights is not there or outside its folder.
    """
    weights = [weight for weight in _read_graph(path).graph.initializer if uses_external_data(weight)]
    names = sorted({entry.value for weight in weights for entry in weight.external_data if entry.key == "location"})
    for name in names:
        if not (path.parent / name).resolve().is_relative_to(path.parent.resolve()):
            raise UserError(
                f"{printable(path)}: has weights outside its folder ({printable(name)}); save it as one file"
            )
        if not (path.parent / name).is_file():
            raise UserError(f"{printable(path)}: its weights {printable(name)} are not beside it; copy both files")
    return [path, *(path.parent / name for name in names)]


def _read_graph(path: Path) -> Any:
    """Return the ONNX model in ``path``, without weights that are elsewhere."""
    try:
        model = onnx.load(str(path), load_external_data=False)
    except Exception as error:  # protobuf's, which has no public name
        if isinstance(error, OSError):
            raise
        raise UserError(f"{printable(path)}: is no ONNX file") from error
    if not model.graph.node:
        raise UserError(f"{printable(path)}: is no ONNX file, or one without a graph")
    return model


def _providers(device: torch.device) -> list[str]:
    able = {entry.ep_name for entry in onnxruntime.get_ep_devices()}
    wanted = ["CUDAExecutionProvider"] if device.type == "cuda" else []
    return [*(name for name in wanted if name in able), "CPUExecutionProvider"]


def _names(entries: Sequence[Any]) -> str:
    return ", ".join(printable(entry.name) for entry in entries)
