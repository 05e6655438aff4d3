"""What is in a file of weights: its state dicts, wherever they stand, and the facts beside them."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from pipeline.core.damage import DAMAGED_ZIP
from pipeline.core.errors import UserError, readable_file
from pipeline.core.printable import printable
from pipeline.networks.file_kinds import FileKind, file_kind, unreadable
from pipeline.networks.fitting import AVERAGED
from pipeline.networks.stand_ins import StandIn, read_with_stand_ins

DEEPEST = 5
"""Containers within each other that are looked into."""
Fact = str | int | float | bool
_DAMAGED = (*DAMAGED_ZIP, SafetensorError, pickle.UnpicklingError, TypeError, AttributeError, AssertionError)
"""What libraries raise at a file that is not as it should be."""
_SCALAR = "multiarray.scalar"
_ARRAY = "multiarray._reconstruct"
_CODES = frozenset("biuf")


class StateDict(NamedTuple):
    """Named tensors in a file."""

    entry: str
    """Where they stand: the keys that lead there, joined by dots; empty: the file is nothing else."""
    tensors: dict[str, Tensor]
    """The file's names."""
    is_joined: bool = False
    """Whether they are what several places of the file hold together, as backbone and head apart."""

    @property
    def num_values(self) -> int:
        """Return how many numbers they hold."""
        return sum(tensor.numel() for tensor in self.tensors.values())

    @property
    def is_averaged(self) -> bool:
        """Return whether it is called like a moving average of weights."""
        return bool(AVERAGED.search(self.entry))


@dataclass
class Checkpoint:
    """What a file holds."""

    path: Path
    kind: FileKind
    state_dicts: list[StateDict] = field(default_factory=list)
    """The likeliest first: a moving average before what it is of, the larger before the smaller."""
    facts: dict[str, Fact] = field(default_factory=dict)
    """Numbers and texts beside the weights, by where they stand: ``epoch``, ``args.model``."""
    unnamed: dict[str, int] = field(default_factory=dict)
    """Where lists of tensors without names stand, and how many they hold."""
    modules: dict[str, str] = field(default_factory=dict)
    """Where whole pickled networks stand, and their classes."""
    not_loaded: list[str] = field(default_factory=list)
    """Classes and functions that the file names and that were not loaded."""
    keys: list[str] = field(default_factory=list)
    """Of the outermost container."""


def read_checkpoint(path: Path) -> Checkpoint:
    """Return what the file ``path`` holds; nothing of its code, or that it names, is run.

    Raises:
        UserError: the file is missing or damaged, or of no format in which weights are read; says what it is.
    """
    found = Checkpoint(path, file_kind(path))
    try:
        with readable_file(path):
            if found.kind is FileKind.SAFETENSORS:
                _read_safetensors(found)
            else:
                _read_pickled(found)
    except UserError:
        raise
    except _DAMAGED as error:
        raise unreadable(path, _why(error)) from error
    found.state_dicts.sort(key=lambda one: (one.is_joined, not one.is_averaged, -one.num_values))
    return found


def _why(error: Exception) -> str:
    """Return the reason of a library in a few words: PyTorch's own begin with advice that would run the file's code."""
    text = str(error).partition("WeightsUnpickler error: ")[2] or str(error)
    return printable(" ".join(text.split("\n\n")[0].split())[:200])


def _read_safetensors(found: Checkpoint) -> None:
    with safe_open(found.path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (it is no dict)
        found.facts |= {f"metadata.{key}": value for key, value in (file.metadata() or {}).items()}
    found.state_dicts.append(StateDict("", tensors))
    found.keys = list(tensors)


def _read_pickled(found: Checkpoint) -> None:
    content, found.not_loaded = read_with_stand_ins(
        found.path,
        is_torchscript=found.kind is FileKind.TORCHSCRIPT,
        is_legacy=found.kind is FileKind.LEGACY_TORCH,
    )
    found.keys = [str(key) for key in content] if isinstance(content, Mapping) else []
    if found.kind is FileKind.TORCHSCRIPT:
        found.state_dicts.append(StateDict("", dict(_script_tensors(content, ""))))
    else:
        _look_into(found, content, ())


def _script_tensors(content: object, prefix: str) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors of a TorchScript module by name: each module is its attributes."""
    if isinstance(content, StandIn) and isinstance(content.state, Mapping):
        for name, value in content.state.items():
            if isinstance(value, Tensor):
                yield f"{prefix}{name}", value
            else:
                yield from _script_tensors(value, f"{prefix}{name}.")


def _look_into(found: Checkpoint, content: object, place: tuple[str, ...]) -> None:
    """Put what ``content``, which stands at ``place``, holds into ``found``."""
    entry = ".".join(place)
    if isinstance(content, StandIn):
        state = content.state[0] if isinstance(content.state, tuple) and content.state else content.state
        if isinstance(state, Mapping) and "_modules" in state and "_parameters" in state:
            found.modules[entry] = content.named
            return
        fact = _plain(content)
        content = state if isinstance(fact, StandIn) else fact
    if isinstance(content, Mapping) and len(place) < DEEPEST:
        _look_into_mapping(found, content, place)
    elif isinstance(content, bool | int | float | str):
        found.facts[entry] = content
    elif isinstance(content, list | tuple) and content and all(isinstance(item, Tensor) for item in content):
        found.unnamed[entry] = len(content)


def _look_into_mapping(found: Checkpoint, content: Mapping[object, object], place: tuple[str, ...]) -> None:
    named = {str(key): _plain(value) for key, value in content.items() if isinstance(key, str | bytes)}
    tensors = {key: value for key, value in named.items() if isinstance(value, Tensor)}
    has_layers = any(value.ndim >= 2 or value.is_quantized for value in tensors.values())
    if has_layers or (tensors and not place):
        found.state_dicts.append(StateDict(".".join(place), tensors))
    before = len(found.state_dicts)
    for key, value in named.items():
        if key not in tensors and "optim" not in key.lower():
            _look_into(found, value, (*place, key))
    inner = found.state_dicts[before:]
    if len(inner) > 1 and not tensors:  # a network in parts
        start = len(".".join(place)) + bool(place)
        whole = {f"{one.entry[start:]}.{name}": value for one in inner for name, value in one.tensors.items()}
        found.state_dicts.append(StateDict(".".join(place), whole, is_joined=True))


def _plain(value: object) -> object:
    """Return a number or array of NumPy, or a path, for which a stand-in was read, as what it is; else ``value``."""
    if not isinstance(value, StandIn):
        return value
    if value.named.endswith(_SCALAR) and len(value.arguments) == 2:
        found = _array(value.arguments[0], (), value.arguments[1])
        return value if found is None else found.item()
    if value.named.endswith(_ARRAY) and isinstance(value.state, tuple) and len(value.state) == 5:
        _, shape, dtype, is_fortran, data = value.state
        found = None if is_fortran or not isinstance(shape, tuple) else _array(dtype, shape, data)
        return value if found is None else torch.from_numpy(found)
    if value.named.startswith("pathlib."):
        return "/".join(map(str, value.arguments))
    return value


def _array(dtype: object, shape: tuple[object, ...], data: object) -> np.ndarray | None:
    """Return the numbers in ``data``; None where they are no plain ones, or not as many as ``shape`` says."""
    if not (isinstance(dtype, StandIn) and dtype.arguments and isinstance(dtype.state, tuple) and len(dtype.state) > 1):
        return None
    if not isinstance(data, bytes):
        return None
    code, order = str(dtype.arguments[0]), str(dtype.state[1])
    if code[:1] not in _CODES or not code[1:].isdigit():
        return None
    try:
        numbers = np.frombuffer(data, np.dtype(order.replace("|", "=") + code)).reshape([int(str(n)) for n in shape])
    except (TypeError, ValueError):
        return None
    return numbers.astype(numbers.dtype.newbyteorder("="))
