"""Pickled files read without the code that they name: PyTorch's restricted reader, and stand-ins for all it refuses.

``torch.load`` with ``weights_only`` builds tensors, numbers, texts and containers, and refuses everything else by its
name. A checkpoint often holds something else beside its weights: the arguments of its training, numbers of NumPy. For
each such name it is given a class made here, which keeps what it is called with and does nothing, so that no code of
the file, or that the file names, is imported or run. Names that PyTorch blocks whatever is allowed (of ``os`` and
``sys``) stay refused.
"""

import io
import pickle
import pickletools
import warnings
import zipfile
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import IO, ClassVar, NamedTuple

import torch

LEGACY_PICKLES = 5
"""Pickles one after the other at the start of a file of the old format; the weights' bytes follow."""
_PUTS, _GETS = ("PUT", "BINPUT", "LONG_BINPUT"), ("GET", "BINGET", "LONG_BINGET")
_KEEP_TARGET = ("REDUCE", "NEWOBJ", "BUILD", "APPEND", "APPENDS", "SETITEM", "SETITEMS")
_MARK = "("


class StandIn(list[object]):
    """Takes the place of an object whose class is not loaded; a list, so that items may be added to it."""

    named: ClassVar[str]
    """The class, or function, that the file names."""
    arguments: tuple[object, ...]
    state: object

    def __new__(cls, *arguments: object) -> "StandIn":
        """Keep what the object would have been made from."""
        self = super().__new__(cls)
        self.arguments, self.state = arguments, None
        return self

    def __init__(self, *arguments: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        """Keep what would have become the object's attributes."""
        self.state = state

    def __hash__(self) -> int:  # type: ignore[override]
        return id(self)

    def __eq__(self, other: object) -> bool:
        return self is other


class _Filled:
    """Takes the place of a class derived from ``dict``, such as ``defaultdict``: what is made is an ordinary one."""

    def __new__(cls, *_: object) -> OrderedDict[object, object]:  # type: ignore[misc]
        return OrderedDict()


class Named(NamedTuple):
    """What a pickle names."""

    names: set[str]
    """Classes and functions, as ``module.name``, spelt as in the pickle."""
    filled: set[str]
    """Those of whose objects items are set by key."""


def read_with_stand_ins(path: Path, *, is_torchscript: bool, is_legacy: bool) -> tuple[object, list[str]]:
    """Return the content of a file of ``torch.save``, or of a TorchScript archive, and the names that have stand-ins.

    Raises:
        pickle.UnpicklingError: it names what is never allowed, or is no such file.
    """
    named = _legacy_names(path) if is_legacy else _zip_names(path)
    stand_ins = [
        (_Filled if name in named.filled else type("StandIn", (StandIn,), {"named": _modern(name)}), spelt)
        for name in sorted(named.names)
        for spelt in sorted({name, _modern(name)})  # PyTorch gives some names of Python 2 their new ones, not all
    ]
    with (
        _without_code(path) if is_torchscript else path.open("rb") as file,  # by a name PyTorch would judge its suffix
        torch.serialization.safe_globals([*stand_ins]),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")  # of protocols and invariants, with advice to PyTorch's developers
        content = torch.load(file, "cpu", weights_only=True)
    return content, sorted(_outside_pytorch({_modern(name) for name in named.names}))


def _outside_pytorch(names: set[str]) -> Iterator[str]:
    known = ("torch.", "collections.OrderedDict", "collections.Counter", "_codecs.encode", "__torch__.")
    return (name for name in names if not name.startswith(known))


def _zip_names(path: Path) -> Named:
    with zipfile.ZipFile(path) as archive:
        member = next(name for name in archive.namelist() if name.endswith("data.pkl"))
        return names_in(archive.open(member))


def _legacy_names(path: Path) -> Named:
    with path.open("rb") as file:
        found = [names_in(file) for _ in range(LEGACY_PICKLES)]
    return Named(set().union(*(one.names for one in found)), set().union(*(one.filled for one in found)))


def names_in(stream: IO[bytes]) -> Named:
    """Return what the pickle that starts at ``stream`` names, by following its instructions without obeying them.

    Raises:
        pickle.UnpicklingError: it is no pickle.
    """
    found = Named(set(), set())
    stack: list[str | None] = []
    memo: dict[object, str | None] = {}
    try:
        for operation, argument, _ in pickletools.genops(stream):
            if operation.name in _PUTS:
                memo[argument] = stack[-1]
            elif operation.name in _GETS:
                stack.append(memo[argument])
            elif operation.name == "MARK":
                stack.append(_MARK)
            elif operation.name == "GLOBAL":
                stack.append(str(argument).replace(" ", "."))
                found.names.add(str(stack[-1]))
            else:
                target = _pop(stack, operation)
                if operation.name.startswith("SETITEM") and target in found.names:
                    found.filled.add(str(target))
                stack += [target if operation.name in _KEEP_TARGET else None] * len(operation.stack_after)
    except (ValueError, IndexError, KeyError, MemoryError, OverflowError) as error:
        raise pickle.UnpicklingError(f"damaged or cut off: {error}") from error
    return found


def _pop(stack: list[str | None], operation: pickletools.OpcodeInfo) -> str | None:
    """Remove from ``stack`` what ``operation`` takes; return the lowest of it."""
    takes = list(operation.stack_before)
    if pickletools.markobject in takes:
        while stack.pop() != _MARK:
            pass
        takes = takes[: takes.index(pickletools.markobject)]
    target = None
    for _ in takes:
        target = stack.pop()
    return target


def _modern(full: str) -> str:
    """Return what Python 3 calls the ``module.name`` that a pickle of protocol 2 names as Python 2 would."""
    module, _, name = full.rpartition(".")
    module, name = NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))
    return f"{module}.{name}"


def _without_code(path: Path) -> io.BytesIO:
    """Return the TorchScript archive ``path`` without its code: what is left has the form of ``torch.save``."""
    copy = io.BytesIO()
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(copy, "w") as kept:
        for member in archive.infolist():
            inner = member.filename.partition("/")[2]
            if inner != "constants.pkl" and not inner.startswith(("code/", "constants/", "extra/")):
                kept.writestr(member.filename, archive.read(member))
    copy.seek(0)
    return copy
