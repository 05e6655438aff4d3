"""Networks on disk: weights as safetensors, and the names and settings from which the network is rebuilt."""

import pickle
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from models.choice import choose
from models.factory import build_classifier, build_flow_student, count_parameters
from pipeline.errors import UserError
from pipeline.files import Json, read_json, write_bytes, write_json

BUILDERS: dict[str, Callable[..., nn.Module]] = {"classifier": build_classifier, "flow_student": build_flow_student}
WEIGHTS = "model.safetensors"
DESCRIPTION = "network.json"


def build_network(kind: str, arguments: Json) -> nn.Module:
    """Return the network ``kind`` (classifier, flow_student) built by ``models.factory`` from ``arguments``.

    Raises:
        ValueError: a name in ``arguments`` is unknown.
    """
    return choose(BUILDERS, kind, kind="network")(**arguments)


def save_network(folder: Path, network: nn.Module, kind: str, arguments: Json, *, about: Json) -> None:
    """Write the weights and ``network.json`` (kind, arguments, number of parameters, and what ``about`` adds)."""
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    write_bytes(folder / WEIGHTS, save(weights))
    description = {"kind": kind, "arguments": arguments, "num_parameters": count_parameters(network)}
    write_json(folder / DESCRIPTION, about | description)


def load_network(folder: Path) -> tuple[nn.Module, Json]:
    """Return the network in ``folder``, on the CPU in eval mode, and its description.

    Raises:
        UserError: the files are missing, damaged or do not fit each other.
    """
    about = read_json(folder / DESCRIPTION)
    try:
        network = build_network(about["kind"], about["arguments"])
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{folder / DESCRIPTION}: describes no network ({error!r}); run the stage again") from error
    load_state(network, read_weights(folder / WEIGHTS), folder / WEIGHTS)
    return network.eval(), about


def read_weights(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file, or of a PyTorch state dict read with ``weights_only``.

    A state dict may stand under ``state_dict`` or ``model``, and its names may begin with ``module.``.

    Raises:
        UserError: the file is missing, damaged, or holds something else than tensors.
    """
    try:
        content = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except (OSError, EOFError, RuntimeError, SafetensorError, pickle.UnpicklingError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path}: no readable weights ({reason}); give a .safetensors file or a state dict") from error
    for key in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise UserError(f"{path}: holds something else than named tensors; give a .safetensors file or a state dict")
    return {str(name).removeprefix("module."): value for name, value in content.items()}


def load_state(network: nn.Module, weights: dict[str, Tensor], path: Path) -> None:
    """Put ``weights`` into ``network``; every name and shape must agree.

    Raises:
        UserError: names are missing or left over, or a shape differs; gives the first few.
    """
    own = network.state_dict()
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
        raise UserError(f"{path}: the weights do not fit the network: {found}; check the backbone and the classes")
    network.load_state_dict(weights)


def read_num_steps(folder: Path) -> int | None:
    """Return the calibrated number of steps; None for a student without sampling steps.

    Raises:
        UserError: calibration.json is missing or damaged.
    """
    path = folder / "calibration.json"
    try:
        num_steps: int | None = read_json(path)["num_steps"]
    except KeyError as error:
        raise UserError(f"{path}: has no num_steps; run calibrate_steps again") from error
    return num_steps
