"""Programs that ``torch.export.save`` has written."""

import io
import zipfile
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

from pipeline.core.errors import UserError
from pipeline.networks.program import Program


class TorchProgram(Program):
    """A program of ``torch.export``. Loading one may run code that its file holds: take it from whom you trust."""

    def open(self, data: bytes, device: torch.device) -> "TorchSession":
        """Return the program on ``device``."""
        return TorchSession(data, device, self.output)


class TorchSession:
    """An exported program that is ready to run; see ``pipeline.networks.program.Session``."""

    def __init__(self, data: bytes, device: torch.device, output: str) -> None:
        program = _load(data)
        names = program.graph_signature.user_inputs
        nodes = {node.name: node for node in program.graph.nodes}
        inputs = [nodes[name].meta["val"] for name in names if isinstance(name, str)]
        if len(inputs) != 1 or not isinstance(inputs[0], Tensor):
            raise UserError(f"takes {len(names)} inputs; needed is one, of images")
        self.shape: Sequence[int | None] = [size if isinstance(size, int) else None for size in inputs[0].shape]
        self.dtype = str(inputs[0].dtype).removeprefix("torch.")
        self.num_parameters = sum(weight.numel() for weight in program.parameters())
        if device.type != "cpu":
            from torch.export.passes import move_to_device_pass

            program = move_to_device_pass(program, device)
        self._output = output
        self._spec = program.call_spec.in_spec
        self._module = program.module()

    def run(self, images: Tensor) -> Tensor:
        """Return the outputs of one batch."""
        args, kwargs = pytree.tree_unflatten([images], self._spec)
        try:
            return _chosen(self._module(*args, **kwargs), self._output)
        except (AssertionError, RuntimeError) as error:
            raise UserError(f"cannot run it ({' '.join(str(error).split())[:300]})") from error


def _load(data: bytes) -> ExportedProgram:
    if not zipfile.is_zipfile(io.BytesIO(data)):
        raise UserError("is nothing that torch.export.save has written")
    try:
        return torch.export.load(io.BytesIO(data))
    except Exception as error:  # of any kind, as the file says
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"is nothing that PyTorch {torch.__version__} can load ({reason})") from error


def _chosen(found: object, name: str) -> Tensor:
    """Return the only one of some outputs, or the one called ``name``."""
    if isinstance(found, Mapping) and name in found:
        found = found[name]
    if isinstance(found, Sequence) and len(found) == 1:
        found = found[0]
    if not isinstance(found, Tensor):
        raise UserError(f"returns a {type(found).__name__}; needed is one tensor, or one under the key {name}")
    return found
