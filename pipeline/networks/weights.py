"""Weights on disk: written as safetensors beside their description, read from files of any origin."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import save
from torch import Tensor, nn

from pipeline.core.errors import UserError
from pipeline.core.files import Json, write_bytes, write_json
from pipeline.core.printable import printable
from pipeline.networks.checkpoint import Checkpoint, read_checkpoint
from pipeline.networks.complexity import num_parameters
from pipeline.networks.file_kinds import ADVICE, unreadable
from pipeline.networks.fitting import COUNTER, Fit, describe, fit, is_enough
from pipeline.networks.spec import DESCRIPTION, WEIGHTS, NetworkSpec

SHOWN = 5


class Weights(NamedTuple):
    """Named tensors of any origin."""

    tensors: dict[str, Tensor]
    """By the names of their origin."""
    source: str
    """The file, or the library's name for them."""
    notes: tuple[str, ...] = ()
    """What the log should say of them."""
    entry: str = ""
    """Where they stand in the file; empty: it holds nothing else."""
    is_joined: bool = False
    """Whether they are what several places of the file hold together."""
    others: tuple[Weights, ...] = ()
    """What else of the same file may be meant, the likeliest first."""


def save_network(folder: Path, network: nn.Module, spec: NetworkSpec, *, about: Json) -> Json:
    """Write the weights and ``network.json``; return the latter.

    It holds kind, arguments, number of parameters, the digest of the user's code that makes it, where there is one, and
    what ``about`` adds.
    """
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    write_bytes(folder / WEIGHTS, save(weights))
    description: Json = {"kind": spec.kind, "arguments": spec.arguments}
    description["num_parameters"] = num_parameters(network)
    if (own_code := spec.own_code()) is not None:
        description["own_code"] = own_code
    write_json(folder / DESCRIPTION, about | description)
    return about | description


def read_weights(path: Path, *, entry: str | None = None) -> Weights:
    """Return the tensors of a safetensors file, of a state dict anywhere in a file of PyTorch, or of TorchScript.

    Args:
        entry: where they stand in the file, as ``state_dict_ema``; what their names begin with may follow it.

    Raises:
        UserError: the file is missing, damaged, of another format, or holds no named tensors.
    """
    checkpoint = read_checkpoint(path)
    if not checkpoint.state_dicts:
        raise _no_state_dict(checkpoint)
    if entry is not None:
        return Weights(_chosen(checkpoint, entry), str(path), entry=entry)
    first, *others = [
        Weights(one.tensors, str(path), entry=one.entry, is_joined=one.is_joined) for one in checkpoint.state_dicts
    ]
    return first._replace(others=tuple(others))


def _chosen(checkpoint: Checkpoint, entry: str) -> dict[str, Tensor]:
    """Return the tensors at ``entry``: a state dict, or those of one whose names begin with what follows it."""
    for found in checkpoint.state_dicts:
        if found.entry == entry:
            return found.tensors
    for found in checkpoint.state_dicts:
        prefix = entry.removeprefix(found.entry).strip(".") + "."
        part = {name: value for name, value in found.tensors.items() if name.startswith(prefix)}
        if part and entry.startswith(found.entry):
            return part
    known = ", ".join(printable(one.entry or "''") for one in checkpoint.state_dicts[:SHOWN])
    raise UserError(
        f"{printable(checkpoint.path)}: has no weights under {printable(entry)!r}; it has them under {known}"
    )


def _no_state_dict(checkpoint: Checkpoint) -> UserError:
    path = printable(checkpoint.path)
    if checkpoint.modules:
        (place, kind), *_ = checkpoint.modules.items()
        keys = "".join(f"[{key!r}]" for key in place.split(".")) if place else ""
        where = f" under {printable(place)}" if place else ""
        return UserError(
            f"{path}: holds a whole pickled module ({printable(kind)}){where}, whose code would have to run; save its "
            'state dict where that code is, and trusted: python -c "import torch; '
            f"torch.save(torch.load('{path}', weights_only=False){printable(keys)}.state_dict(), 'state_dict.pth')\""
        )
    if checkpoint.unnamed:
        (place, count), *_ = checkpoint.unnamed.items()
        return unreadable(checkpoint.path, f"{count} tensors without names under {printable(place) or 'its root'}")
    keys = f"its keys: {', '.join(map(printable, checkpoint.keys[:SHOWN]))}" if checkpoint.keys else "no dictionary"
    named = checkpoint.not_loaded[:SHOWN]
    classes = f"; it names {', '.join(map(printable, named))}, which are not loaded" if named else ""
    return UserError(f"{path}: no readable weights (something else than named tensors; {keys}{classes}); {ADVICE}")


class Loaded(NamedTuple):
    """What was put into a network."""

    names: frozenset[str]
    """Of its tensors."""
    lines: list[str]
    """What the log should say."""


def load_weights(network: nn.Module, weights: Weights, *, new_head: bool = False) -> list[str]:
    """Put ``weights`` into ``network`` as ``put_weights`` does, and return the lines that the log should say."""
    return put_weights(network, weights, new_head=new_head).lines


def put_weights(network: nn.Module, weights: Weights, *, new_head: bool = False) -> Loaded:
    """Put ``weights`` of any origin into ``network``.

    Of several in a file the first that fits is taken. Names may be the network's own, torchvision's or timm's, those of
    the networks for small images of the CRD protocol, or of version 0.1, behind whatever all begin with.

    Args:
        new_head: whether what follows the backbone may stay as it is where the file has none, or one of other classes.

    Raises:
        UserError: no weights of the file fit; gives the first few differences with the file's names.
    """
    candidates = [weights, *weights.others]
    fits = [fit(network, one.tensors) for one in candidates]
    allowed = [i for i, one in enumerate(fits) if is_enough(one, network, candidates[i].tensors, new_head=new_head)]
    if not allowed:
        nearest = max(range(len(fits)), key=lambda i: len(fits[i].taken))
        require_numbers(candidates[nearest].tensors, weights.source)
        raise _misfit(network, candidates[nearest], fits[nearest])
    chosen, found = candidates[allowed[0]], fits[allowed[0]]
    taken = {mine: chosen.tensors[theirs] for mine, theirs in found.taken.items()}
    require_numbers({found.taken[mine]: value for mine, value in taken.items()}, chosen.source)
    network.load_state_dict(taken, strict=False)
    lines = _choice(chosen, [candidates[i] for i in allowed[1:]], found)
    return Loaded(frozenset(taken), [*lines, *_left_out(found, network, chosen.tensors)])


def _choice(chosen: Weights, others: list[Weights], found: Fit) -> list[str]:
    """Return what was taken, where something else could have been, and how to take that."""
    where = chosen.entry or "its root"
    also = [one.entry or "its root" for one in others if not one.is_joined]
    also += [".".join(filter(None, (chosen.entry, p.rstrip(".")))) for p in found.rivals]
    line = f"{printable(chosen.source)}: took {len(found.taken)} tensors"
    if chosen.entry or also:
        line += f" of {printable(where)}"
    if found.prefix:
        line += f", whose names begin with {printable(found.prefix)}"
    if also:
        line += f"; {', '.join(map(printable, also))} would fit as well: weights_entry: {printable(also[0])} takes that"
    return [line]


def _left_out(found: Fit, network: nn.Module, tensors: Mapping[str, Tensor]) -> list[str]:
    """Return what of the file was not taken, and what of the network is made anew."""
    own = network.state_dict()
    lines = []
    for mine, theirs in found.other_shape.items():
        given, needed = tensors[theirs].shape, own[mine].shape
        differs = f"{tuple(given)} in the file, {tuple(needed)} here"
        if given[:1] and given[1:] == needed[1:]:
            differs = f"{given[0]} classes in the file, {needed[0]} here"
        lines.append(f"{printable(theirs)}: {differs}: made anew")
    if found.missing:
        lines.append(f"{_some(found.missing)}: not in the file: made anew")
    beside = [name for name in [*found.unknown, *found.beside] if not name.endswith(COUNTER)]
    return lines + ([f"not taken of the file: {_some(beside)}"] if beside else [])


def _some(names: list[str]) -> str:
    listed = ", ".join(map(printable, names[:SHOWN]))
    return listed if len(names) <= SHOWN else f"{listed} and {len(names) - SHOWN} more"


def _misfit(network: nn.Module, weights: Weights, found: Fit) -> UserError:
    how = f"; fmkt inspect-weights {printable(weights.source)} says what fits" if Path(weights.source).exists() else ""
    source, where = printable(weights.source), f", {printable(weights.entry)}" if weights.entry else ""
    return UserError(
        f"{source}{where}: the weights do not fit the network: {describe(found, network, weights.tensors)}; check the "
        f"backbone and the classes{how}"
    )


def load_state(network: nn.Module, weights: Mapping[str, Tensor], source: object) -> None:
    """Put ``weights`` from ``source``, a file that this pipeline wrote, into ``network``; all must agree.

    Raises:
        UserError: names are missing or left over, a shape differs, or a number is not finite; gives the first few.
    """
    own = network.state_dict()
    counters = {name: torch.zeros_like(own[name]) for name in own if name.endswith(COUNTER)}
    weights = counters | dict(weights)  # files of older PyTorch lack them, and nothing here reads them
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
        raise UserError(f"{source}: the weights do not fit the network: {found}; run the stage that wrote them again")
    require_numbers(weights, source)
    network.load_state_dict(weights)


def require_numbers(tensors: Mapping[str, Tensor], source: object) -> None:
    """Raise UserError at the first of ``tensors`` from ``source`` that does not hold numbers, finite in float32."""
    for name, value in tensors.items():
        if not _is_plain(value):
            raise UserError(
                f"{printable(source)}: {printable(name)} is no plain tensor of numbers (but on the device meta, "
                "sparse, quantized, complex or repeated); save the state dict of the trained network in float32"
            )
        if value.is_floating_point() and not bool(value.float().isfinite().all()):  # float32 is what networks have
            raise UserError(
                f"{printable(source)}: {printable(name)} is not finite; its training diverged, give other weights"
            )


def _is_plain(value: Tensor) -> bool:
    """Return whether ``value`` holds real numbers, one beside the other, and each of them is stored."""
    if value.is_meta or value.is_quantized or value.is_complex() or value.layout != torch.strided:
        return False
    return value.numel() * value.element_size() <= value.untyped_storage().nbytes()
