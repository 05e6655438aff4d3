"""Which tensors of a file belong where in a network: by name and shape, whatever all names begin with."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from models.weight_names import WeightNames
from pipeline.core.printable import printable

if TYPE_CHECKING:
    from torch import Tensor, nn

WRAPPERS = frozenset(
    ("module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module", "_dp_module")
)
"""Parts of names that DataParallel, torch.compile, FSDP and the like put anywhere into them."""
AVERAGED = re.compile(r"(^|[._])(ema|swa|shadow|averaged?|teacher)(?=[._]|$)", re.IGNORECASE)
"""Names of moving averages of weights; where teacher and student are alike, the teacher is one as well."""
DEEPEST = 6
"""Parts of a name that may be a prefix."""
COUNTER = "num_batches_tracked"
"""Batch normalisation's count of batches, which files of older PyTorch lack and nothing here reads."""
SHOWN = 3
"""Names of each kind in a message."""


@dataclass
class Fit:
    """How the tensors of a file fit a network."""

    taken: dict[str, str] = field(default_factory=dict)
    """From the network's name to the file's."""
    prefix: str = ""
    """What the names of the file begin with, and the network's do not."""
    rivals: list[str] = field(default_factory=list)
    """Other prefixes whose tensors would fit as well."""
    missing: list[str] = field(default_factory=list)
    """Names of the network."""
    other_shape: dict[str, str] = field(default_factory=dict)
    """From the network's name to that of the file, which has another shape."""
    unknown: list[str] = field(default_factory=list)
    """Names of the file that lie where the network has weights, but not these."""
    beside: list[str] = field(default_factory=list)
    """Names of the file that are none of the network's: losses, counters, other heads."""

    @property
    def is_whole(self) -> bool:
        """Return whether the network gets all that it has, and nothing of the file is at odds with it."""
        return not (self.missing or self.other_shape or self.unknown)


def fit(network: nn.Module, tensors: Mapping[str, Tensor]) -> Fit:
    """Return how ``tensors``, by the file's names, fit ``network``; numbers are not looked at."""
    names = WeightNames(network)
    own = dict(network.state_dict())
    short = _without_wrappers(tensors, own)
    groups = {prefix: _group(names, own, tensors, short, prefix) for prefix in _prefixes(short)}
    best = max(groups, key=lambda prefix: (*_score(groups[prefix]), bool(AVERAGED.search(prefix)), -len(prefix)))
    found = Fit(prefix=best)
    found.taken, found.other_shape = dict(groups[best].fitting), dict(groups[best].other_shape)
    found.rivals = [
        prefix
        for prefix, group in groups.items()
        if len(group.fitting) == len(found.taken) and not {*group.fitting.values()} & {*found.taken.values()}
    ]
    for group in groups.values():  # a head may have another prefix than its backbone
        found.taken |= {mine: theirs for mine, theirs in group.fitting.items() if names.is_head(mine)} | found.taken
    found.other_shape = {mine: theirs for mine, theirs in found.other_shape.items() if mine not in found.taken}
    found.missing = [name for name in own if name not in found.taken | found.other_shape and not name.endswith(COUNTER)]
    _sort_leftovers(found, names, own, tensors, short)
    return found


@dataclass
class _Group:
    """What the names of the file with one prefix are in the network."""

    fitting: dict[str, str]
    other_shape: dict[str, str]


def _score(group: _Group) -> tuple[int, int]:
    return len(group.fitting), len(group.other_shape)


def _without_wrappers(tensors: Mapping[str, Tensor], own: Iterable[str]) -> dict[str, str]:
    """Return the file's name for each name without the wrappers' parts; parts that the network has itself stay."""
    wrappers = WRAPPERS - {part for name in own for part in name.split(".")}
    short: dict[str, str] = {}
    for name in tensors:
        plain = ".".join(part for part in name.split(".") if part not in wrappers)
        short[name if plain in short else plain] = name
    return short


def _prefixes(names: Iterable[str]) -> list[str]:
    found = Counter({"": 1})
    for name in names:
        parts = name.split(".")
        found.update(".".join(parts[:depth]) + "." for depth in range(1, min(len(parts), DEEPEST + 1)))
    return list(found)


def _group(
    names: WeightNames, own: Mapping[str, Tensor], tensors: Mapping[str, Tensor], short: Mapping[str, str], prefix: str
) -> _Group:
    group = _Group({}, {})
    for name, original in short.items():
        if name.startswith(prefix):
            mine = names.find(name[len(prefix) :])
            if mine in own:
                fits = _alike(own[mine], tensors[original])
                (group.fitting if fits else group.other_shape).setdefault(mine, original)
    return group


def _alike(own: Tensor, given: Tensor) -> bool:
    is_counter = own.dim() == 0 and not own.is_floating_point()  # which a moving average of all tensors makes a float
    return own.shape == given.shape and (is_counter or own.is_floating_point() == given.is_floating_point())


def _sort_leftovers(
    found: Fit, names: WeightNames, own: Mapping[str, Tensor], tensors: Mapping[str, Tensor], short: Mapping[str, str]
) -> None:
    """Tell what of the file is at odds with the network from what merely stands beside its weights."""
    used = {*found.taken.values(), *found.other_shape.values()}
    scopes = {names.scope(name) for name in own}
    for name, original in short.items():
        if original in used:
            continue
        inside = name.startswith(found.prefix) and names.scope(names.find(name[len(found.prefix) :])) in scopes
        is_weight = tensors[original].numel() > 1 and not name.endswith(COUNTER)
        (found.unknown if inside and is_weight else found.beside).append(original)


def is_enough(found: Fit, network: nn.Module, tensors: Mapping[str, Tensor], *, new_head: bool) -> bool:
    """Return whether ``network`` may take what was ``found``: everything, or, with ``new_head``, all but a head."""
    if found.is_whole or not new_head or not found.taken:
        return found.is_whole
    names = WeightNames(network)
    own = network.state_dict()
    if not all(names.is_head(name) for name in own):  # the backbone must be there, whatever the head is
        scopes = {names.scope(name) for name in own if not names.is_head(name)}
        left = (names.scope(names.find(name.removeprefix(found.prefix))) for name in found.unknown)
        return all(map(names.is_head, [*found.missing, *found.other_shape])) and scopes.isdisjoint(left)
    differs = [(own[mine].shape, tensors[theirs].shape) for mine, theirs in found.other_shape.items()]
    return not (found.missing or found.unknown) and all(mine[1:] == theirs[1:] for mine, theirs in differs)


def describe(found: Fit, network: nn.Module, tensors: Mapping[str, Tensor]) -> str:
    """Return in words where ``tensors`` do not fit ``network``, with the names of the file."""
    own, faults = network.state_dict(), []
    if not found.taken and not found.other_shape:
        return f"none of its names ({_first(tensors)}) is one of the network's ({_first(_published(own))})"
    if found.unknown:
        faults.append(f"{len(found.unknown)} unknown ({_first(found.unknown)})")
    if found.missing:
        near = _nearest(_published(found.missing), [*found.unknown, *found.beside])
        faults.append(f"{len(found.missing)} missing ({_first(_published(found.missing))}{near})")
    if found.other_shape:
        shapes = [
            f"{theirs}: {tuple(tensors[theirs].shape)} where {tuple(own[mine].shape)} is needed"
            for mine, theirs in found.other_shape.items()
        ]
        faults.append(f"{len(shapes)} of another shape ({_first(shapes)})")
    return "; ".join(faults)


def _published(names: Iterable[str]) -> list[str]:
    return [re.sub(r"^backbone\.parts\.\d+\.", "", name) for name in names]


def _nearest(missing: list[str], given: list[str]) -> str:
    near = [found for name in missing[:SHOWN] for found in difflib.get_close_matches(name, given, n=1)]
    return f"; the file has {_first(dict.fromkeys(near))}" if near else ""


def _first(names: Iterable[str]) -> str:
    listed = [printable(name) for name in names]
    return ", ".join(listed[:SHOWN]) + (" ..." if len(listed) > SHOWN else "")
