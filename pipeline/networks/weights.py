"""Weights on disk: safetensors, with the names and settings from which their network is rebuilt beside them."""

from pathlib import Path

import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn

from models.factory import count_parameters
from pipeline.core.errors import UserError
from pipeline.core.files import Json, write_bytes, write_json
from pipeline.core.printable import printable
from pipeline.networks.program import Program
from pipeline.networks.spec import NetworkSpec

WEIGHTS = "model.safetensors"
DESCRIPTION = "network.json"


def save_network(folder: Path, network: nn.Module, spec: NetworkSpec, *, about: Json) -> Json:
    """Write the weights and ``network.json``; return the latter.

    It holds kind, arguments, number of parameters, and what ``about`` adds.
    """
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    write_bytes(folder / WEIGHTS, save(weights))
    description: Json = {"kind": spec.kind, "arguments": spec.arguments}
    description["num_parameters"] = (
        network.num_parameters if isinstance(network, Program) else count_parameters(network)
    )
    write_json(folder / DESCRIPTION, about | description)
    return about | description


def read_weights(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file, or of a PyTorch state dict read with ``weights_only``.

    A state dict may stand under ``state_dict`` or ``model``, and its names may begin with ``module.``.

    Raises:
        UserError: the file is missing, damaged, or holds something else than tensors.
    """
    try:
        content = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except Exception as error:
        reason = _why_unreadable(path, error)
        raise UserError(f"{path}: no readable weights ({reason}); give a .safetensors file or a state dict") from error
    for key in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise UserError(f"{path}: holds something else than named tensors; give a .safetensors file or a state dict")
    odd = [name for name, value in content.items() if not _is_plain(value)]
    if odd:
        raise UserError(
            f"{path}: {printable(odd[0])} is no plain tensor of numbers (but on the device meta, sparse, quantized or "
            "complex); save the state dict of the trained network in float32"
        )
    broken = [name for name, value in content.items() if not bool(value.isfinite().all())]
    if broken:
        raise UserError(f"{path}: {printable(broken[0])} is not finite; its training diverged, give other weights")
    return {str(name).removeprefix("module."): value for name, value in content.items()}


def _is_plain(value: Tensor) -> bool:
    """Return whether ``value`` holds real numbers, one beside the other."""
    return not (value.is_meta or value.is_quantized or value.is_complex()) and value.layout == torch.strided


def _why_unreadable(path: Path, error: Exception) -> str:
    """Return why ``path`` holds no weights; PyTorch's own words say it only of what ``torch.save`` has written."""
    if path.suffix != ".safetensors" and not isinstance(error, OSError):
        with path.open("rb") as file:
            start = file.read(4)
        if not start.startswith((b"PK\x03\x04", b"\x80")):
            return "the file is empty" if not start else "torch.save has not written this file"
    return " ".join(str(error).split())[:200]


def load_state(network: nn.Module, weights: dict[str, Tensor], source: object) -> None:
    """Put ``weights`` from ``source`` into ``network``; every name and shape must agree.

    Raises:
        UserError: names are missing or left over, or a shape differs; gives the first few.
    """
    own = network.state_dict()
    counters = {name: torch.zeros_like(own[name]) for name in own if name.endswith("num_batches_tracked")}
    weights = counters | weights  # files of older PyTorch lack them, and nothing here reads them
    missing = [name for name in own if name not in weights]
    unknown = [name for name in weights if name not in own]
    shapes = [
        f"{name}: {tuple(weights[name].shape)} where {tuple(tensor.shape)} is needed"
        for name, tensor in own.items()
        if name in weights and weights[name].shape != tensor.shape
    ]
    if missing or unknown or shapes:
        faults = {"missing": missing, "unknown": unknown, "of another shape": shapes}
        found = "; ".join(f"{len(names)} {what} ({', '.join(names[:3])})" for what, names in faults.items() if names)
        raise UserError(f"{source}: the weights do not fit the network: {found}; check the backbone and the classes")
    network.load_state_dict(weights)
