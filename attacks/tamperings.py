"""What somebody who can write into a package does to it, each by its name."""

import hashlib
import json
import os
import shutil
import socket
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import load_file, save_file

Change = Callable[[Path], Any]


class Tampering(NamedTuple):
    """A change to a package."""

    change: Change
    sums_again: bool
    """Whether SHA256SUMS is written anew afterwards, as whoever can write one file can do it."""


def put_in_place(path: Path, data: bytes | bytearray) -> None:
    """Write ``data`` in the place of ``path``, never through a link: what that leads to belongs to the host."""
    path.unlink(missing_ok=True)
    with path.open("xb") as file:
        file.write(data)


def write_sums_again(package: Path) -> None:
    """List what lies in ``package`` now; a signature is not touched."""
    paths = sorted(path for path in package.rglob("*") if path.is_file() and not path.is_symlink())
    lines = [
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(package).as_posix()}\n"
        for path in paths
        if path.name not in {"SHA256SUMS", "SHA256SUMS.sig"}
    ]
    put_in_place(package / "SHA256SUMS", "".join(lines).encode())


def tamperings(untouched: Path) -> Mapping[str, Tampering]:
    """Return the tamperings of packages like the one in ``untouched``, by name."""
    found: dict[str, Tampering] = {}
    for sums_again, group in ((False, _files(untouched)), (False, _strangers(untouched)), (False, _lists())):
        found |= {name: Tampering(change, sums_again) for name, change in group}
    for group in (_emptied(), _manifests(), _descriptions(), _samples(untouched), _networks(untouched)):
        found |= {name: Tampering(change, sums_again=True) for name, change in group}
    return found


def _and(*changes: Change) -> Change:
    """Return all of ``changes``, one after another."""

    def apply(package: Path) -> None:
        for change in changes:
            change(package)

    return apply


Named = Iterator[tuple[str, Change]]
FILES = (
    "model.onnx",
    "manifest.json",
    "labels.json",
    "samples.safetensors",
    "preprocessing.json",
    "README.md",
    "calibration.json",
    "engine.json",
    "triton/fmkt-student/config.pbtxt",
    "model.int8-cpu.onnx",
    "tradeoff.svg",
)


def _files(untouched: Path) -> Named:
    def flip(path: Path) -> None:
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)

    def put(path: Path, other: Change) -> None:
        path.unlink()
        other(path)

    def changes(name: str) -> Named:
        yield f"flip a byte: {name}", lambda p: flip(p / name)
        yield f"missing: {name}", lambda p: (p / name).unlink()
        yield f"link outside: {name}", lambda p: put(p / name, lambda path: path.symlink_to(untouched / name))
        yield f"link to /dev/zero: {name}", lambda p: put(p / name, lambda path: path.symlink_to("/dev/zero"))
        yield f"link to itself: {name}", lambda p: put(p / name, lambda path: path.symlink_to(path.name))
        yield f"pipe: {name}", lambda p: put(p / name, os.mkfifo)
        yield f"folder: {name}", lambda p: put(p / name, Path.mkdir)
        yield f"sparse, 1 TiB: {name}", lambda p: os.truncate(p / name, 2**40)
        yield f"name in other case: {name}", lambda p: (p / name).rename((p / name).with_name((p / name).name.upper()))

    for file in FILES:
        yield from changes(file)


def _emptied() -> Named:
    for name in FILES:
        yield f"empty: {name}", written(name, b"")


def _strangers(untouched: Path) -> Named:
    def engine(package: Path, sidecar: str, plan: str | None = None) -> None:
        (package / "engines").mkdir()
        (package / "engines/x.plan.json").write_text(sidecar)
        if plan is not None:
            (package / "engines/x.plan").write_text(plan)

    def linked(package: Path, name: str, target: str) -> None:
        (package / name).symlink_to(target)

    def folder_as_link(package: Path) -> None:
        shutil.rmtree(package / "triton")
        (package / "triton").symlink_to(untouched / "triton")

    def pipe(package: Path, name: str) -> None:
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        os.mkfifo(package / name)

    def bound(package: Path) -> None:
        home = Path.cwd()
        os.chdir(package)  # names of sockets are short
        try:
            with socket.socket(socket.AF_UNIX) as place:
                place.bind("s")
        finally:
            os.chdir(home)

    evil = hashlib.sha256(b"evil").hexdigest()
    right = json.dumps({"plan": "x.plan", "plan_sha256": evil, "onnx": "model.onnx", "precision": "fp32"})
    yield "stranger: a file", lambda p: (p / "evil.py").write_text("x")
    yield "stranger: a hidden file", lambda p: (p / ".evil").write_text("x")
    yield "stranger: in a hidden folder", _and(lambda p: (p / ".x").mkdir(), lambda p: (p / ".x/evil").write_text("x"))
    yield "stranger: an empty folder", lambda p: (p / "nothing").mkdir()
    yield "stranger: a link to a folder", lambda p: linked(p, "x", "/etc")
    yield "stranger: a link to the package", lambda p: linked(p, "x", ".")
    yield "stranger: a link to nothing", lambda p: linked(p, "x", "nowhere")
    yield "stranger: a name with escapes", lambda p: (p / "\x1b]0;evil\x07\x1b[2J\nerror: forged").write_text("x")
    yield "stranger: a name that is no text", lambda p: Path(os.fsdecode(os.fsencode(p) + b"/\xff\xfe")).write_text("x")
    yield "stranger: a file that nobody may read", _and(written("x", b"x"), lambda p: (p / "x").chmod(0))
    yield "stranger: a folder that nobody may read", _and(lambda p: (p / "x").mkdir(), lambda p: (p / "x").chmod(0))
    yield "stranger: a socket", bound
    yield "folder triton: a link", folder_as_link
    yield "stranger: pipe triton/x/1/model.plan", lambda p: pipe(p, "triton/x/1/model.plan")
    yield "stranger: pipe engines/x.plan", lambda p: pipe(p, "engines/x.plan")
    yield "stranger: pipe engines/x.plan.json", lambda p: pipe(p, "engines/x.plan.json")
    yield "stranger: engines is a file", lambda p: (p / "engines").write_text("x")
    yield "engine: sidecar alone, no JSON", lambda p: engine(p, "{")
    yield "engine: sidecar no JSON", lambda p: engine(p, "{", "evil")
    yield "engine: sidecar a list", lambda p: engine(p, "[1]", "evil")
    yield "engine: sum is a list", lambda p: engine(p, '{"plan_sha256": [1]}', "evil")
    yield "engine: the attacker's, all right", lambda p: engine(p, right, "evil")
    yield "engine: differs from its sidecar", lambda p: engine(p, right, "evil2")
    yield "engine: the attacker's, listed", _and(lambda p: engine(p, right, "evil"), write_sums_again)
    yield (
        "engine: in another folder, listed",
        _and(written("clients/x.plan", b"evil"), write_sums_again),
    )


def _lists() -> Named:
    def edit(package: Path, change: Callable[[bytes], bytes]) -> None:
        path = package / "SHA256SUMS"
        path.write_bytes(change(path.read_bytes()))

    def added(name: bytes, sum_: bytes = b"0" * 64) -> Change:
        return lambda p: edit(p, lambda text: text + sum_ + b"  " + name + b"\n")

    def upper(text: bytes) -> bytes:
        return b"\n".join(line[:64].upper() + line[64:] for line in text.split(b"\n"))

    def as_link(package: Path, target: str) -> None:
        (package / "SHA256SUMS").unlink()
        (package / "SHA256SUMS").symlink_to(target)

    def as_pipe(package: Path) -> None:
        (package / "SHA256SUMS").unlink()
        os.mkfifo(package / "SHA256SUMS")

    passwd = hashlib.sha256(Path("/etc/passwd").read_bytes()).hexdigest().encode()
    yield "sums: empty", lambda p: edit(p, lambda _: b"")
    yield "sums: binary", lambda p: edit(p, lambda _: bytes(range(128, 256)) * 4)
    yield "sums: CRLF", lambda p: edit(p, lambda text: text.replace(b"\n", b"\r\n"))
    yield "sums: upper case", lambda p: edit(p, upper)
    yield "sums: with a star", lambda p: edit(p, lambda text: text.replace(b"  ", b" *"))
    yield "sums: ../ that agrees", added(b"../../../../../../etc/passwd", passwd)
    yield "sums: absolute that agrees", added(b"/etc/passwd", passwd)
    for name in ("kmsg", "self/pagemap", "self/mem", "self/environ"):
        yield f"sums: /proc/{name}", added(b"/proc/" + name.encode())
    yield "sums: /dev/zero", added(b"/dev/zero")
    yield "sums: NUL in a name", added(b"a\0b")
    yield "sums: a name of 5,000", added(b"a" * 5000)
    yield "sums: a path of 5,000", added(b"a/" * 2500 + b"a")
    yield "sums: ./ before a name", lambda p: edit(p, lambda text: text.replace(b"  model.onnx", b"  ./model.onnx"))
    yield "sums: a folder", added(b"triton")
    yield "sums: the package itself", added(b".")
    yield "sums: itself", added(b"SHA256SUMS")
    yield "sums: a name in other case", added(b"MODEL.onnx")
    yield "sums: a file twice, wrong first", lambda p: edit(p, lambda text: b"0" * 64 + b"  model.onnx\n" + text)
    yield "sums: a file twice, the same", lambda p: edit(p, lambda text: text + text.splitlines(keepends=True)[0])
    yield "sums: escapes of a terminal", added(b"\x1b]0;evil\x07\x1b[2Jx")
    yield "sums: a separator of lines in a name", added("a\u2028error: forged".encode())
    yield "sums: backslash, as GNU escapes names", lambda p: edit(p, lambda text: b"\\" + text)
    yield "sums: 50 MB", lambda p: edit(p, lambda text: text + (b"0" * 64 + b"  x\n") * 700_000)
    yield "sums: no end of line", lambda p: edit(p, lambda text: text.rstrip(b"\n"))
    yield "sums: without the manifest", lambda p: edit(p, lambda text: _without(text, b"manifest.json"))
    yield "sums: without the samples", lambda p: edit(p, lambda text: _without(text, b"samples.safetensors"))
    yield "sums: link to /dev/zero", lambda p: as_link(p, "/dev/zero")
    yield "sums: pipe", as_pipe
    yield "signature: of nothing", lambda p: (p / "SHA256SUMS.sig").write_text("x")


def _without(text: bytes, name: bytes) -> bytes:
    return b"".join(line for line in text.splitlines(keepends=True) if not line.endswith(b"  " + name + b"\n"))


def written(name: str, data: bytes) -> Change:
    """Return what writes ``data`` as the file ``name``."""
    return lambda p: (p / name).write_bytes(data)


def edited(name: str, change: Callable[[Any], Any]) -> Change:
    """Return what changes the JSON file ``name``, in place or by what ``change`` returns."""

    def apply(package: Path) -> None:
        content = json.loads((package / name).read_text())
        other = change(content)
        (package / name).write_text(json.dumps(content if other is None else other))

    return apply


def _edit_manifest(change: Callable[[Any], Any]) -> Change:
    return edited("manifest.json", change)


def _added(key: str, value: Any, *places: str) -> Change:
    def apply(content: Any) -> None:
        for place in places:
            content = content[place]
        content.update({key: value})

    return _edit_manifest(apply)


def _without_key(key: str) -> Change:
    return _edit_manifest(lambda content: content.pop(key, None) and None)


def _whole(data: bytes) -> Change:
    return written("manifest.json", data)


def _edit_gate(gate: Any) -> Change:
    return _edit_manifest(lambda content: content["gates"]["fp32"].update(gate))


def _twice(package: Path) -> None:
    text = (package / "manifest.json").read_text()
    (package / "manifest.json").write_text(text.replace("{", '{"name": "other",', 1))


def _manifests() -> Named:
    values: dict[str, Any] = {
        "name": (5, "../x", "a\nb", "a" * 10**6, "", "\x1b[2J", "\ud800", None, ["a"]),
        "image_size": ([10**9, 10**9], ["8", "8"], [-8, 8], [8.0, 8.0], [16, 16], [8], [True, 8], None),
        "input": (5, "uint8", None, []),
        "files": ({}, [], None, "model.onnx"),
        "gates": ({}, [1], None),
        "num_steps": ("four", -1, 10**4000, 2.5, [4]),
        "opset": ("x", None),
        "task": ("dreams", 5, [], {}, None),
        "about": (5, [], {"name": 5}, {"data": 5}, {"data": {}}, {"changed_files": 5}, {"version": ["1"]}),
        "warnings": (5, "text", [5], {"a": "b"}, ["\x1b[2J\nerror: forged"]),
        "left_out": ([], {"fp16": 5}, "x", {"\x1b[2J": "why"}),
        "signature": (5, [], {}, {"input": 5, "outputs": []}),
    }
    for key, given in values.items():
        for number, value in enumerate(given):
            yield f"manifest: {key}, {number}", _added(key, value)
        yield f"manifest: without {key}", _without_key(key)
    entry = {"precision": "evil", "bytes": 1}
    for number, name in enumerate(("../../../etc/passwd", "..", "", ".", "a/b", "README.md", "/etc/passwd", "\0")):
        yield (
            f"manifest: file of another place, {number}",
            _added(name, entry, "files"),
        )
    entries: Sequence[Any] = (5, {}, {"precision": [1]}, {"precision": 5}, {"precision": "fp32", "bytes": "many"})
    for number, wrong in enumerate(entries):
        yield (
            f"manifest: entry of a file, {number}",
            _added("model.onnx", wrong, "files"),
        )
    yield "manifest: one file for two", _added("model.fp16.onnx", entry, "files")
    gates: Sequence[Any] = (
        {"max_difference": float("nan")},
        {"max_difference": "1"},
        {"max_difference": float("inf"), "max_drop": 9, "min_agreement": -1},
        {"max_difference": 10**400},
        {"min_agreement": True},
        {"max_difference": None, "min_agreement": 1e-9, "max_drop": 1e9},
        {"other": 1},
    )
    for number, gate in enumerate(gates):
        yield f"manifest: gate, {number}", _edit_gate(gate)
    yield "manifest: nested 100,000", _whole(b'{"a":' * 100_000)
    yield "manifest: nested 900", _whole(b'{"a":' * 900 + b"1" + b"}" * 900)
    yield "manifest: 5,000 digits", _whole(b'{"a":' + b"9" * 5000 + b"}")
    yield "manifest: a list", _whole(b"[]")
    yield "manifest: UTF-16", _whole("{}".encode("utf-16"))
    yield "manifest: no UTF-8", _whole(b'{"a":"\xff"}')
    yield (
        "manifest: a byte order mark",
        lambda p: (p / "manifest.json").write_bytes(b"\xef\xbb\xbf" + (p / "manifest.json").read_bytes()),
    )
    yield "manifest: 200 MB of blanks", _whole(b" " * 200_000_000 + b"{}")
    yield "manifest: a key twice", _twice


def _descriptions() -> Named:
    def put(name: str, content: Any) -> Change:
        return edited(name, lambda _: content)

    def set_to(name: str, key: str, value: Any) -> Change:
        return edited(name, lambda content: content.update({key: value}))

    labels: dict[str, Any] = {
        "a text": "0123456789",
        "numbers": list(range(10)),
        "9 of them": list("123456789"),
        "nested": [[1]] * 10,
        "null": None,
        "control characters": [f"\x1b[2J\r\n<script>{i}" for i in range(10)],
        "lone surrogates": ["\ud800"] * 10,
        "one name ten times": ["a"] * 10,
        "a million characters each": ["a" * 10**6 + str(i) for i in range(10)],
        "right to left": [f"\u202e{i}" for i in range(10)],
    }
    for name, value in labels.items():
        yield f"labels: {name}", put("labels.json", {"labels": value})
    yield "labels: a list", edited("labels.json", lambda _: [1])
    ids: Sequence[Any] = (5, [1], list("0123456789"), [1] * 10, [1.5] * 10, None, [10**400 + i for i in range(10)])
    for number, value in enumerate(ids):
        yield f"labels: ids, {number}", set_to("labels.json", "category_ids", value)
    wrong: Sequence[Any] = (b"", b"{", b"[]", b"5", b'{"image_size": 5}', b'{"num_steps": 1e999, "curve": "<script>"}')
    for name in ("preprocessing.json", "calibration.json", "engine.json", "metrics.json", "tradeoff.json"):
        for number, data in enumerate(wrong):
            yield f"{name}: other content, {number}", written(name, data)
    for key, value in {"min_batch": 0, "max_batch": -1, "opt_batch": 10**9, "workspace_mib": "a", "evil": 1}.items():
        yield f"engine.json: {key}", set_to("engine.json", key, value)


def _samples(untouched: Path) -> Named:
    right = load_file(untouched / "samples.safetensors")

    def raw(header: bytes, size: int | None = None, data: bytes = b"") -> Change:
        length = struct.pack("<Q", len(header) if size is None else size)
        return lambda p: (p / "samples.safetensors").write_bytes(length + header + data)

    def described(dtype: str, shape: list[Any], offsets: list[Any], data: bytes = b"") -> Change:
        entry = {"dtype": dtype, "shape": shape, "data_offsets": offsets}
        return raw(json.dumps({"images": entry}).encode(), data=data)

    def saved(**changes: Any) -> Change:
        kept = {name: np.ascontiguousarray(v) for name, v in (right | changes).items() if v is not None}
        return lambda p: save_file(kept, p / "samples.safetensors")

    images, logits, labels = right["images"], right["logits"], right["labels"]
    yield "samples: header of 2**63", raw(b"{}", 2**63)
    yield "samples: header of 2**40", raw(b"{}", 2**40)
    yield "samples: header of 99 MB", raw(b" " * 99_000_000)
    yield "samples: header of 99 MB of objects", raw(b"{" + b'"a":{},' * 14_000_000 + b'"b":{}}')
    yield "samples: header nested", raw(b'{"a":' * 40_000)
    yield "samples: header a list", raw(b"[]")
    yield "samples: header twice the same", raw(b'{"images":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},' * 2)
    yield "samples: offsets beyond", described("U8", [1], [0, 99_999_999])
    yield "samples: offsets backwards", described("U8", [1], [1, 0])
    yield "samples: offsets nothing", described("U8", [1], [])
    yield "samples: offsets NaN", described("U8", [1], [float("nan"), 1])
    yield "samples: shape overflows", described("U8", [2**32] * 3, [0, 0])
    yield "samples: shape of 10**400", described("U8", [10**400, 0], [0, 0])
    yield "samples: 1,000 axes", described("U8", [1] * 1000, [0, 1], b"a")
    yield "samples: type BF16", described("BF16", [1], [0, 2], b"ab")
    yield "samples: type F8", described("F8_E4M3", [1], [0, 1], b"a")
    yield "samples: type a list", described([], [1], [0, 1], b"a")  # type: ignore[arg-type]
    yield "samples: images float64", saved(images=images.astype(np.float64))
    yield "samples: images NaN", saved(images=np.full(images.shape, np.nan, np.float32))
    yield "samples: logits float16", saved(logits=logits.astype(np.float16))
    yield "samples: logits NaN", saved(logits=logits * np.nan)
    yield "samples: logits infinite", saved(logits=logits * np.inf)
    yield "samples: logits int", saved(logits=logits.astype(np.int64))
    yield "samples: logits bool", saved(logits=logits > 0)
    yield "samples: labels float", saved(labels=labels.astype(np.float32))
    yield "samples: labels one short", saved(labels=labels[:-1])
    yield "samples: labels out of range", saved(labels=labels + 10**9)
    yield "samples: labels negative", saved(labels=labels - 10)
    yield "samples: labels missing", saved(labels=None)
    yield "samples: logits one short", saved(logits=logits[:-1])
    yield "samples: logits without columns", saved(logits=logits[:, :0])
    yield "samples: logits scalar", saved(logits=np.float32(3).reshape(()))
    yield "samples: no images", saved(images=images[:0], labels=labels[:0], logits=logits[:0])
    yield "samples: images in two axes", saved(images=images.reshape(len(images), -1))
    yield "samples: images scalar", saved(images=np.uint8(3).reshape(()))
    yield "samples: images missing", saved(images=None)
    yield "samples: channels last", saved(images=images.transpose(0, 2, 3, 1))
    yield "samples: one tensor more", saved(other=images)
    yield "samples: metadata of 50 MB", lambda p: save_file(right, p / "samples.safetensors", {"x": "y" * 50_000_000})
    yield "samples: removed", lambda p: (p / "samples.safetensors").unlink()


def _loop() -> Any:
    """Return a graph that a Loop runs as long as its condition holds, which does not change."""
    types = {"i": TensorProto.INT64, "ci": TensorProto.BOOL, "xi": TensorProto.FLOAT}
    outputs = {"co": TensorProto.BOOL, "xo": TensorProto.FLOAT}
    values = {
        name: helper.make_tensor_value_info(name, kind, None if name[0] == "x" else [])
        for name, kind in (types | outputs).items()
    }
    nodes = [helper.make_node("Identity", ["ci"], ["co"]), helper.make_node("Identity", ["xi"], ["xo"])]
    return helper.make_graph(nodes, "b", [values[name] for name in types], [values[name] for name in outputs])


def _model(
    nodes: list[Any],
    inits: Sequence[Any] = (),
    taken: int = TensorProto.FLOAT,
    domains: Sequence[str] = (),
    outputs: Any = ("b", 10),
) -> Any:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("image", taken, ("b", 3, 8, 8))],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, outputs)],
        list(inits),
    )
    opsets = [helper.make_opsetid("", 20), *(helper.make_opsetid(domain, 1) for domain in domains)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9)


MEAN = helper.make_node("ReduceMean", ["image"], ["m"], keepdims=0)
ENDLESS = "network: a loop without end"


def _put(model: Any) -> Change:
    return lambda p: (p / "model.onnx").write_bytes(model.SerializeToString())


def _changed(change: Callable[[Any], object]) -> Change:
    def apply(package: Path) -> None:
        model = onnx.load(package / "model.onnx")
        change(model)
        (package / "model.onnx").write_bytes(model.SerializeToString())

    return apply


def _elsewhere(place: str, length: int = 100) -> Change:
    """Return what puts a network there that has weights in another file."""
    tensor = TensorProto(name="w", data_type=TensorProto.UINT8, dims=[length], data_location=TensorProto.EXTERNAL)
    for key, value in {"location": place, "offset": "0", "length": str(length)}.items():
        tensor.external_data.add(key=key, value=value)
    nodes = [
        helper.make_node("Cast", ["w"], ["c"], to=TensorProto.FLOAT),
        helper.make_node("ReduceSum", ["c"], ["s"], keepdims=0),
        MEAN,
        helper.make_node("Add", ["s", "m"], ["logits"]),
    ]
    return _put(_model(nodes, [tensor]))


def _scaled(model: Any) -> None:
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(1.05), tensor.name))


def _swapped(package: Path) -> None:
    one, other = package / "model.onnx", package / "model.int8-cpu.onnx"
    held = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(held)


def _second(model: Any) -> None:
    model.graph.input.append(helper.make_tensor_value_info("other", TensorProto.FLOAT, ["b"]))


def _networks(untouched: Path) -> Named:
    places = (
        "/etc/passwd",
        "../../../../../etc/passwd",
        "README.md",
        "/dev/zero",
        "/proc/kmsg",
        "nope.bin",
        "",
        "a\0b",
        "*/_ORT_MEM_ADDR_/*",
    )
    for place in places:
        yield f"network: weights in {place!r}", _elsewhere(place)
    yield "network: weights in a pipe", _and(lambda p: os.mkfifo(p / "f"), _elsewhere("f"))
    yield "network: weights of 10**12 bytes", _elsewhere("README.md", 10**12)
    yield "network: weights in a link", _and(lambda p: (p / "e").symlink_to("/etc/passwd"), _elsewhere("e"))
    for domain in ("com.evil", "ai.onnx.contrib"):
        node = helper.make_node("PyOp", ["image"], ["logits"], domain=domain)
        yield f"network: an operator of {domain}", _put(_model([node], domains=[domain]))
    yield "network: cut short", lambda p: (p / "model.onnx").write_bytes((p / "model.onnx").read_bytes()[:1000])
    yield "network: garbage", lambda p: (p / "model.onnx").write_bytes(bytes(range(256)) * 20)
    yield "network: zeros", lambda p: (p / "model.onnx").write_bytes(bytes(100))
    yield "network: another answer", _put(_model([helper.make_node("Identity", ["image"], ["logits"])]))
    huge = [
        helper.make_node("ConstantOfShape", ["sh"], ["z"]),
        helper.make_node("ReduceSum", ["z"], ["s"], keepdims=0),
        MEAN,
        helper.make_node("Add", ["s", "m"], ["logits"]),
    ]
    shape = helper.make_tensor("sh", TensorProto.INT64, [1], [2**46])
    yield "network: allocates 256 TiB", _put(_model(huge, [shape]))
    whole = [
        helper.make_node("Cast", ["image"], ["c"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["c"], ["logits"], keepdims=0),
    ]
    for kind in (TensorProto.INT64, TensorProto.STRING, TensorProto.BOOL, TensorProto.DOUBLE):
        yield f"network: takes type {kind}", _put(_model(whole, taken=kind, outputs=()))
    yield "network: takes two inputs", _changed(_second)
    yield "network: takes nothing", _changed(lambda model: model.graph.input.pop())
    yield "network: returns nothing", _changed(lambda model: model.graph.output.pop())
    yield "network: output renamed", _changed(lambda model: setattr(model.graph.output[0], "name", "other"))
    yield (
        "network: output of another node",
        _changed(lambda model: setattr(model.graph.output[0], "name", model.graph.node[0].output[0])),
    )
    endless = [MEAN, helper.make_node("Loop", ["", "t", "m"], ["logits"], body=_loop())]
    true = helper.make_tensor("t", TensorProto.BOOL, [], [True])
    yield ENDLESS, _put(_model(endless, [true], outputs=None))
    yield (
        "network: metadata of 50 MB",
        _changed(lambda model: model.metadata_props.add(key="x", value="y" * 50_000_000)),
    )
    library = '{"session_options":{"custom_op_library":"/nowhere/evil.so"}}'
    yield (
        "network: metadata with a library",
        _changed(lambda model: model.metadata_props.add(key="ort_config", value=library)),
    )
    yield "network: fp32 and int8 swapped", _swapped
    yield "network: weights changed a little", _changed(_scaled)
    yield "network: of another package", lambda p: shutil.copyfile(untouched / "model.int8-trt.onnx", p / "model.onnx")
