"""Hostile files of weights: nothing of them runs, and what is taken of them is what they plainly hold.

Each case is a file of safetensors or of ``torch.save``, in either of its forms, whose header, pickle, container or
content is changed, or that has a call in its pickle. It is read as ``train_teacher.weights`` is, and put into a
network; ``fmkt inspect-weights`` describes it.
"""

import builtins
import contextlib
import functools
import importlib
import io
import json
import operator
import os
import pickle
import pickletools
import random
import subprocess
import sys
import tempfile
import traceback
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import click
import torch
from click.testing import CliRunner
from safetensors.torch import save
from torch import Tensor, nn

from attacks.campaign import Attack, Outcome, refusal
from attacks.damage import DAMAGES, flip_bits, number
from attacks.memory import peak_from_here
from pipeline.core.errors import UserError
from pipeline.networks.weights import put_weights, read_weights
from stages.commands.inspect_weights import inspect_weights

LARGEST = 300
"""MiB by which the process may grow."""
INSPECTED = 0.15
"""Share of the files that are taken and described as well, which compares them with each known network."""
CANARY = "fmkt_attack_canary"
"""A module that leaves a trace when it is imported."""
TRACE = "harmed"

State = dict[str, Tensor]
Made = tuple[bytes, str]
"""A file's bytes and the suffix of its name."""


class Small(nn.Module):
    """The network that takes the weights."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.bn = nn.BatchNorm2d(4)
        self.fc = nn.Linear(4, 5)


def state(rng: random.Random) -> State:
    """Return good weights of the network, with numbers of their own."""
    generator = torch.Generator().manual_seed(rng.randrange(2**31))
    return {
        name: torch.rand(value.shape, generator=generator) if value.is_floating_point() else value
        for name, value in Small().state_dict().items()
    }


def contents(rng: random.Random) -> Any:
    """Return good weights as people save them."""
    good = state(rng)
    return rng.choice(
        (
            good,
            OrderedDict(good),
            {"state_dict": good, "epoch": 3, "arch": "resnet18"},
            {"model": {f"module.{name}": value for name, value in good.items()}, "optimizer": {"state": {}}},
            {"net": good, "ema": good, "args": [1, "text", None, 0.5, (True,)]},
        )
    )


def saved(content: object, rng: random.Random, protocol: int = 2) -> bytes:
    """Return a file of ``torch.save``, in its present form or in that of before 1.6."""
    buffer = io.BytesIO()
    torch.save(content, buffer, pickle_protocol=protocol, _use_new_zipfile_serialization=rng.random() < 0.6)
    return buffer.getvalue()


def with_pickle(data: bytes, change: Callable[[bytes], bytes]) -> bytes:
    """Return the file of ``torch.save`` with a changed pickle of what it holds; sums and lengths fit it."""
    if not data.startswith(b"PK"):
        stream, ends = io.BytesIO(data), []
        for _ in range(4):  # two numbers, facts about the system, then the content
            pickletools.dis(stream, io.StringIO())
            ends.append(stream.tell())
        return data[: ends[2]] + change(data[ends[2] : ends[3]]) + data[ends[3] :]
    copy = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as archive, zipfile.ZipFile(copy, "w") as changed:
        for item in archive.infolist():
            content = archive.read(item)
            changed.writestr(item.filename, change(content) if item.filename.endswith("data.pkl") else content)
    return copy.getvalue()


def mutated_opcodes(data: bytes, rng: random.Random) -> bytes:
    """Leave out, repeat, exchange or replace some instructions of a pickle."""
    try:
        starts = [position for _, _, position in pickletools.genops(data) if position is not None]
    except ValueError:
        return flip_bits(data, rng)
    steps = [data[start:end] for start, end in zip(starts, [*starts[1:], len(data)], strict=True)]
    for _ in range(rng.choice((1, 1, 2, 5))):
        at, other = rng.randrange(len(steps)), rng.randrange(len(steps))
        way = rng.randrange(5)
        if way == 0 and len(steps) > 2:
            del steps[at]
        elif way == 1:
            steps.insert(at, steps[other])
        elif way == 2:
            steps[at], steps[other] = steps[other], steps[at]
        elif way == 3:
            steps[at] = rng.choice(pickletools.opcodes).code.encode("latin-1") + steps[at][1:]
        else:
            steps[at] = steps[at][:1] + flip_bits(steps[at][1:], rng)
    return b"".join(steps)


class Call:
    """What an object is that calls a function when it is unpickled."""

    def __init__(self, function: object, *arguments: object) -> None:
        self._call = function, arguments

    def __reduce__(self) -> Any:
        return self._call


def harmful(rng: random.Random, folder: Path) -> Call:
    """Return something that leaves a trace in ``folder`` when it is unpickled as Python would."""
    trace = str(folder / TRACE)
    write = f"open({trace!r}, 'w').close()"
    calls: tuple[tuple[Any, ...], ...] = (
        (os.system, f"touch '{trace}'"),
        (eval, write),
        (exec, write),
        (subprocess.Popen, ["touch", trace]),
        (subprocess.check_output, ["touch", trace]),
        (Path.touch, Path(trace)),
        (open, trace, "w"),
        (torch.save, {}, trace),
        (os.mkdir, trace),
        (os.rename, str(folder), trace),
        (importlib.import_module, CANARY),
        (builtins.__import__, CANARY),
        (functools.partial(os.system, f"touch '{trace}'"),),
        (getattr, Path(trace), "touch"),
        (operator.methodcaller("touch"), Path(trace)),
        (map, os.mkdir, [trace]),
        (torch.load, trace, "cpu"),
        (torch.jit.load, trace),
        (torch.utils.data.DataLoader, [Call(os.mkdir, trace)]),
        (type, "X", (), {"__del__": Call(os.mkdir, trace)}),
    )
    return Call(*rng.choice(calls))


def calls(rng: random.Random, folder: Path) -> Made:
    """Put a call somewhere into the content."""
    content, call = contents(rng), harmful(rng, folder)
    where = rng.randrange(5)
    if where == 0:
        whole: object = call
    elif where == 1:
        whole = {"state_dict": content, "extra": call}
    elif where == 2:
        whole = [content, call]
    elif where == 3:
        whole = {"state_dict": {**state(rng), "fc.weight": call}}
    else:
        whole = {**content, "x": {"y": (call,)}}
    return saved(whole, rng, rng.choice((2, 2, 3, 4, 5))), ".pth"


def spliced_calls(rng: random.Random, folder: Path) -> Made:
    """Put a call among the instructions of a good pickle, in the words of any protocol."""
    call = pickle.dumps(harmful(rng, folder), rng.randrange(6))
    body = b"".join(
        call[start:end]
        for (operation, _, start), end in _spans(call)
        if operation.name not in {"PROTO", "STOP", "FRAME"}
    )

    def change(data: bytes) -> bytes:
        starts = [start for (_, _, start), _ in _spans(data)]
        at = rng.choice(starts[1:])
        return data[:at] + body + rng.choice((b"0", b"")) + data[at:]

    return with_pickle(saved(contents(rng), rng), change), ".pth"


def _spans(data: bytes) -> Iterator[tuple[tuple[pickletools.OpcodeInfo, Any, int], int]]:
    found = [(operation, argument, start or 0) for operation, argument, start in pickletools.genops(data)]
    return zip(found, [*(start for _, _, start in found[1:]), len(data)], strict=True)


def bare_pickles(rng: random.Random, folder: Path) -> Made:
    content: object = harmful(rng, folder) if rng.random() < 0.5 else {"a": [1, 2.5, "x", b"y", {3}, None]}
    data = pickle.dumps(content, rng.randrange(6))
    return mutated_opcodes(data, rng) if rng.random() < 0.5 else data, rng.choice((".pkl", ".pth"))


def opcodes(rng: random.Random) -> Made:
    data = saved(contents(rng), rng, rng.randrange(2, 6))
    return with_pickle(data, lambda content: mutated_opcodes(content, rng)), ".pth"


def pickle_bytes(rng: random.Random) -> Made:
    damage = rng.choice(list(DAMAGES.values()))
    return with_pickle(saved(contents(rng), rng), lambda content: damage(content, rng)), ".pth"


def pickle_bombs(rng: random.Random) -> Made:
    """Ask for far more than the file holds: by length, by depth, by repetition."""

    def change(_: bytes) -> bytes:
        return rng.choice(
            (
                b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".",
                b"\x80\x02X" + (2**32 - 1).to_bytes(4, "little") + b"a.",
                b"\x80\x04\x8e" + (2**62).to_bytes(8, "little") + b"a.",
                b"\x80\x02\x8b" + (2**31 - 1).to_bytes(4, "little") + b"\xff.",
                b"\x80\x02r\xff\xff\xff\x7f" + b"N" + b"r\xff\xff\xff\xff.",
                b"\x80\x02I" + b"9" * 100_000 + b"\n.",
                b"\x80\x02]q\x00" + b"h\x00h\x00\x86q\x00" * 5000 + b".",
                b"\x80\x02}q\x00X\x01\x00\x00\x00ah\x00s.",
                b"\x80\x02]q\x00h\x00a.",
                b"\x80\x02(" + b"K\x01" * 300_000 + b"l.",
            )
        )

    return with_pickle(saved(contents(rng), rng), change), ".pth"


def containers(rng: random.Random) -> Made:
    """Lie in the zip container: members left out, twice, of another size, renamed, compressed, in other folders."""
    buffer = io.BytesIO()
    torch.save(contents(rng), buffer)
    copy = io.BytesIO()
    with zipfile.ZipFile(buffer) as archive, zipfile.ZipFile(copy, "w") as changed:
        victim = rng.choice(archive.namelist())
        way = rng.randrange(8)
        for name in archive.namelist():
            content, kind = archive.read(name), zipfile.ZIP_STORED
            if name == victim:
                if way == 0:
                    continue
                if way == 1:
                    changed.writestr(name, content)
                content = {2: content[:-1], 3: content + bytes(64), 4: b"", 5: bytes(2**23)}.get(way, content)
                kind = zipfile.ZIP_DEFLATED if way in {5, 6} else kind
                name = rng.choice(("../x", "/abs", "x", "\x01", "data.pkl", "a/data.pkl")) if way == 7 else name  # noqa: PLW2901
            changed.writestr(name, content, kind)
    data = copy.getvalue()
    return (number(data, rng) if rng.random() < 0.3 else data), rng.choice((".pth", ".pt", ".bin"))


def directory_bytes(rng: random.Random) -> Made:
    """Change what the zip container says of its members."""
    buffer = io.BytesIO()
    torch.save(contents(rng), buffer)
    data = buffer.getvalue()
    start = data.find(b"PK\x01\x02")
    directory = data[start:]
    for _ in range(rng.choice((1, 1, 3, 10))):
        directory = number(directory, rng) if rng.random() < 0.5 else flip_bits(directory, rng)
    return data[:start] + directory, ".pth"


def file_bytes(rng: random.Random) -> Made:
    data = save(state(rng)) if rng.random() < 0.3 else saved(contents(rng), rng)
    return rng.choice(list(DAMAGES.values()))(data, rng), rng.choice((".pth", ".safetensors"))


ODD_NUMBERS: tuple[Any, ...] = (
    0,
    1,
    -1,
    2**31,
    2**32,
    2**62,
    2**63,
    2**64,
    10**30,
    1.5,
    float("nan"),
    None,
    "1",
    [],
    True,
)


def _other_dtype(rng: random.Random, entry: Any, _: Any) -> None:
    entry["dtype"] = rng.choice(("F64", "I8", "BOOL", "F8_E4M3", "C64", "", "f32", 7, None))


def _other_shape(rng: random.Random, entry: Any, _: Any) -> None:
    shapes: tuple[Any, ...] = ([], [0], [2**62, 4], [-1], [2**40, 0], [1] * 100, "x", None, [1.5])
    entry["shape"] = rng.choice((*shapes, [4, rng.choice(ODD_NUMBERS)]))


def _other_place(rng: random.Random, entry: Any, header: Any) -> None:
    other = header[rng.choice(list(header))].get("data_offsets")
    entry["data_offsets"] = rng.choice((other, [rng.choice(ODD_NUMBERS), rng.choice((*ODD_NUMBERS, 144))]))


def _other_keys(rng: random.Random, entry: Any, _: Any) -> None:
    entry.pop(rng.choice(list(entry)), None)
    entry[rng.choice(("x", "shape\0", "data_offsets ", "dtype"))] = rng.choice(ODD_NUMBERS)


def _other_name(rng: random.Random, entry: Any, header: Any) -> None:
    name = rng.choice(("", "\0", "a\x1b[31m", "é" * 3000, "../x", "__metadata__"))
    header[name] = rng.choice((dict(entry), {"a": "b"}, {"a": 1}, {"format": "x" * 10_000}))


HEADER_CHANGES = (_other_dtype, _other_shape, _other_place, _other_keys, _other_name)


def headers(rng: random.Random) -> Made:
    """Lie in the header of safetensors: types, shapes, places, names, its length."""
    data = save(state(rng), {"format": "pt"})
    size = int.from_bytes(data[:8], "little")
    header: Any = json.loads(data[8 : 8 + size])
    for _ in range(rng.choice((1, 1, 2, 4))):
        entry = header[rng.choice([name for name in header if name != "__metadata__"])]
        rng.choice(HEADER_CHANGES)(rng, entry, header)
    text = json.dumps(header).encode()
    if rng.random() < 0.15:
        text = rng.choice((b"[" * 100_000, b"{}", b"null", text + b" " * 8, text[:-1], text[:-1] + b"," + text[1:]))
    length = len(text) if rng.random() < 0.85 else rng.choice((0, 1, 2**63, 2**64 - 1, len(text) + 1, len(data), 10**8))
    return length.to_bytes(8, "little") + text + data[8 + size :], ".safetensors"


def odd_tensors(rng: random.Random) -> Made:
    """Put numbers, types, shapes and views that no network has in the place of a tensor."""
    good = state(rng)
    name = rng.choice([name for name in good if good[name].is_floating_point()])
    value = good[name]
    others: tuple[Callable[[], object], ...] = (
        lambda: value.index_fill(0, torch.tensor([0]), rng.choice((float("nan"), float("inf"), -float("inf")))),
        lambda: value.double() * 1e300,
        lambda: value.to(rng.choice((torch.float16, torch.bfloat16, torch.int8, torch.bool, torch.complex64))),
        lambda: value.to(torch.float8_e4m3fn),
        lambda: torch.quantize_per_tensor(value, 0.1, 0, torch.qint8),
        value.to_sparse,
        lambda: value.to("meta"),
        lambda: torch.zeros(1).expand(10**6, 10**6),
        lambda: torch.zeros(1).expand(value.shape),
        lambda: torch.zeros(0, 2**40),
        lambda: torch.zeros((1,) * 60),
        lambda: value.t() if value.ndim == 2 else value.flip(0),
        lambda: value[..., :1],
        lambda: nn.Parameter(value),
        lambda: nn.Parameter(value, requires_grad=False),
        value.numpy,
        value.tolist,
        lambda: torch.tensor(float("nan")),
        value.untyped_storage,
        lambda: None,
        lambda: 10**400,
        lambda: "a" * 100_000,
        lambda: b"\xff",
        lambda: [value] * 3,
    )
    changed: dict[Any, object] = {**good, name: rng.choice(others)()}
    if rng.random() < 0.3:
        changed[rng.choice(("", "\0", "a\nb", "x" * 10_000, 7, None, (1,), "fc", "a\x1b[2J", "\udc80"))] = value.clone()
    nested: object = changed
    for _ in range(rng.choice((0, 0, 1, 2, 40))):
        nested = {rng.choice(("state_dict", "model", "a\x1b[1m", "x.y")): nested}
    return saved(nested, rng), ".pth"


def unchanged(rng: random.Random) -> Made:
    return (save(state(rng)) if rng.random() < 0.3 else saved(contents(rng), rng)), ".bin"


KINDS: Mapping[str, Callable[[random.Random], Made]] = {
    "nothing": unchanged,
    "bytes of the file": file_bytes,
    "bytes of the pickle": pickle_bytes,
    "instructions of the pickle": opcodes,
    "a pickle that asks for too much": pickle_bombs,
    "members of the container": containers,
    "the container's directory": directory_bytes,
    "the header of safetensors": headers,
    "tensors that no network has": odd_tensors,
}
HARMFUL: Mapping[str, Callable[[random.Random, Path], Made]] = {
    "a call in the content": calls,
    "a call among the instructions": spliced_calls,
    "a bare pickle": bare_pickles,
}
"""Those that would leave a trace in a folder."""


@contextlib.contextmanager
def opened() -> Iterator[Attack]:
    """Yield the attack; a module that leaves a trace can be imported meanwhile."""
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / f"{CANARY}.py").touch()
        sys.path.insert(0, name)
        warnings.simplefilter("ignore")  # what the making of odd files warns of
        yield attack


def attack(rng: random.Random, folder: Path) -> Outcome:
    """Make one file, read it, put it into a network and describe it."""
    kind = rng.choice([*KINDS, *HARMFUL])
    home = folder / "home"
    home.mkdir()
    data, suffix = HARMFUL[kind](rng, home) if kind in HARMFUL else KINDS[kind](rng)
    file = folder / f"w{suffix}"
    file.write_bytes(data)
    peak = peak_from_here()
    verdict, fault = _taken(file, is_good=kind == "nothing")
    if not fault and (verdict == "held" or rng.random() < INSPECTED):
        fault = _described(file)
    if not fault and (
        sorted(folder.iterdir()) != sorted((file, home)) or list(home.iterdir()) or CANARY in sys.modules
    ):
        fault = "something of the file has run"
        sys.modules.pop(CANARY, None)
    if not fault and (grown := peak.grown()) > LARGEST:
        fault = f"the process grew by {grown} MiB"
    return Outcome(kind, "broke" if fault else verdict, fault)  # type: ignore[arg-type]


def _taken(file: Path, *, is_good: bool) -> tuple[str, str]:
    """Return whether the file was refused or taken, and what was wrong with that."""
    network = Small()
    try:
        put_weights(network, read_weights(file), new_head=True)
    except UserError as error:
        if not str(error).isprintable() or str(file) not in str(error):
            return "held", f"not one line that names the file: {error!r}"
        return "held", f"good weights are refused: {error}" if is_good else ""
    except Exception:  # noqa: BLE001  (any other is what is looked for)
        return "held", traceback.format_exc()[-2000:]
    wrong = [name for name, value in network.state_dict().items() if not value.isfinite().all()]
    return "harmless", f"{wrong} are not finite" if wrong else ""


def _described(file: Path) -> str:
    """Return what was wrong with the end of ``fmkt inspect-weights``; empty: nothing."""
    command: click.Command = inspect_weights
    done = CliRunner().invoke(command, [str(file)])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        return "".join(traceback.format_exception(done.exception))[-2000:]
    if not all(line.isprintable() for line in done.output.splitlines()):
        return f"control characters reach the terminal: {done.output[:500]!r}"
    return refusal(done.exit_code, done.output)
