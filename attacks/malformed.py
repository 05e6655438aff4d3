"""Malformed requests, drawn at random from a seed: not one of them may be answered with a result or a 5xx."""

import gzip
import http.client
import json
import pickle
import random
import socket
from collections.abc import Callable
from typing import Any, NamedTuple

import grpc
import numpy as np
from tritonclient.grpc import service_pb2

METHOD = "/inference.GRPCInferenceService/"
JUNK: list[Any] = [
    None,
    True,
    -1,
    0,
    1.5,
    2**31,
    2**63,
    -(2**63),
    10**30,
    "",
    "8",
    [],
    [1],
    {},
    {"a": 1},
    "\ud800",
    "\0",
]
Rng = random.Random


class Target(NamedTuple):
    """A model to ask wrongly."""

    model: str
    shape: tuple[int, ...]
    """Of an image, (3, H, W), float32."""
    max_batch: int
    max_bytes: int

    def image(self, rng: Rng) -> np.ndarray[Any, Any]:
        """Return an image of its size."""
        return np.random.default_rng(rng.getrandbits(32)).random((1, *self.shape), np.float32)


class HttpCase(NamedTuple):
    """A malformed HTTP request."""

    kind: str
    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class GrpcCase(NamedTuple):
    """A malformed message."""

    kind: str
    method: str
    message: bytes


def not_in(rng: Rng, good: set[str]) -> str:
    """Return a name that is none of ``good``."""
    name = rng.choice(["", "Image", "images", "input", "x" * 5000, "\u4e16", "../../etc", "%s%n", "image\0", "LOGITS"])
    return name if name not in good else name + "_"


def wrong_shape(rng: Rng, target: Target) -> list[int]:
    right = [1, *target.shape]
    kind = rng.randrange(6)
    if kind == 0:
        right[rng.randrange(4)] = rng.choice([0, -1, -(2**63), 2**62, 2**63 - 1, 9999])
    elif kind == 1:
        del right[rng.randrange(4)]
    elif kind == 2:
        right.insert(rng.randrange(5), rng.choice([1, 2, 0, -1]))
    elif kind == 3:
        right = []
    elif kind == 4:
        right[0] = target.max_batch + rng.randint(1, 10**6)
    else:
        right = [1, right[3] + 1, right[1], right[2]]
    return right


def document(target: Target, **changes: Any) -> dict[str, Any]:
    """Return the JSON of a request with binary data, its input changed."""
    size = 4 * int(np.prod(target.shape))
    entry: dict[str, Any] = {"name": "image", "datatype": "FP32", "shape": [1, *target.shape]}
    entry["parameters"] = {"binary_data_size": size}
    return {"inputs": [entry | changes]}


def _corrupt(rng: Rng, data: bytes) -> bytes:
    """Cut ``data`` short."""
    return data[: rng.randrange(len(data))]


def _swap(document: dict[str, Any], rng: Rng, target: Target) -> tuple[str, dict[str, Any]]:
    """Spoil one part of a request's JSON; return how."""
    entry = document["inputs"][0]
    size = entry["parameters"]["binary_data_size"]
    outputs: list[Any] = [
        [{"name": not_in(rng, {"logits"})}],
        [{"name": "logits"}] * 2,
        [3],
        [{}],
        {"name": "logits"},
        [{"name": "logits", "parameters": {"classification": rng.choice([-1, "a", 1.5, True])}}],
        [{"name": "logits", "parameters": {"binary_data": rng.choice([0, "no", None])}}],
        [{"name": "logits", "parameters": {"shared_memory_region": "a", "shared_memory_byte_size": 8}}],
    ]
    changes: dict[str, Callable[[], Any]] = {
        "name": lambda: entry.update(name=not_in(rng, {"image"})),
        "datatype": lambda: entry.update(datatype=rng.choice(["FP64", "UINT8", "BYTES", "fp32", "INT32", "", "\0"])),
        "shape": lambda: entry.update(shape=wrong_shape(rng, target)),
        "shape_type": lambda: entry.update(shape=[rng.choice([None, "1", 1.0, [1], True]), *target.shape]),
        "size": lambda: entry["parameters"].update(binary_data_size=rng.choice([-1, 0, size - 1, size + 1, 2**70])),
        "size_type": lambda: entry["parameters"].update(binary_data_size=rng.choice([None, "8", 1.5, [], True])),
        "shared_memory": lambda: entry.update(parameters={"shared_memory_region": "a", "shared_memory_byte_size": 8}),
        "no_inputs": lambda: document.update(inputs=[]),
        "duplicate": lambda: document.update(inputs=document["inputs"] * 2),
        "inputs": lambda: document.update(inputs=rng.choice([3, "a", [3], [[]], {"image": 1}, [None]])),
        "input_junk": lambda: entry.update({rng.choice(["name", "datatype", "shape"]): rng.choice([None, 1, {}, 2.5])}),
        "outputs": lambda: document.update(outputs=rng.choice(outputs)),
        "parameters": lambda: document.update(parameters=rng.choice([3, [], "a", True])),
        "timeout": lambda: document.update(parameters={"timeout": rng.choice([-1, "1", 1.5, [], True])}),
        "binary_output": lambda: document.update(parameters={"binary_data_output": rng.choice([1, "true", []])}),
        "id": lambda: document.update(id=rng.choice([1, [], {}, 2.5, False])),
    }
    kind = rng.choice(sorted(changes))
    changes[kind]()
    return kind, document


def _wrong_values(rng: Rng, target: Target) -> list[Any]:
    values: list[Any] = target.image(rng).ravel().tolist()
    kind = rng.randrange(4)
    if kind == 0:
        values[rng.randrange(len(values))] = rng.choice([*JUNK[:2], "1", [], {}, 1e300, 10**400])
    elif kind == 1:
        values.pop()
    elif kind == 2:
        values = [values, values]
    else:
        values = [[[values]]]
    return values


def http_case(rng: Rng, target: Target) -> HttpCase:
    """Return a malformed HTTP request."""
    path = f"/v2/models/{target.model}/infer"
    kind, content = "", document(target)
    raw, headers = target.image(rng).tobytes(), dict[str, str]()
    choice = rng.randrange(12)
    if choice <= 3:
        kind, content = _swap(content, rng, target)
    elif choice == 4:
        kind, raw = "truncated", _corrupt(rng, raw) if rng.random() < 0.7 else raw + rng.randbytes(rng.randint(1, 99))
    elif choice == 5:
        kind, values = "not_finite", np.frombuffer(raw, np.float32).copy()
        values[rng.randrange(len(values))] = rng.choice([np.nan, np.inf, -np.inf])
        raw = values.tobytes()
    elif choice == 6:
        kind = "values"
        content["inputs"][0] = {"name": "image", "datatype": "FP32", "shape": [1, *target.shape]}
        content["inputs"][0]["data"] = _wrong_values(rng, target)
        return HttpCase(kind, "POST", path, headers, json.dumps(content).encode())
    text = json.dumps(content).encode()
    headers["Inference-Header-Content-Length"] = str(len(text))
    body = text + raw
    if choice == 7:
        kind, length = "header_length", rng.choice([-1, 0, len(text) - 1, len(text) + 1, 10**9, 10**40, "", "a", "1e3"])
        headers["Inference-Header-Content-Length"] = str(length)
    elif choice == 8:
        kind, headers, body = "no_json", {}, _no_json(rng, text)
    elif choice == 9:
        kind, headers["Content-Encoding"], body = _wrong_encoding(rng, body, target)
    elif choice == 10:
        kind, body = "too_large", body + bytes(target.max_bytes)
    elif choice == 11:
        return HttpCase("path", *_wrong_path(rng, target), headers, body)
    return HttpCase(kind, "POST", path, headers, body)


def _no_json(rng: Rng, text: bytes) -> bytes:
    nested = b"[" * 100_000
    constants = b'{"inputs": [{"name": "image", "datatype": "FP32", "shape": [1], "data": [NaN, Infinity]}]}'
    choices = [b"", _corrupt(rng, text), rng.randbytes(200), nested, constants, pickle.dumps({"inputs": []}), b"[]"]
    return rng.choice(
        [*choices, b"null", b'"a"', b"\xff\xfe{}", b'{"a": ' * 50_000, b'{"inputs": ' + b"9" * 5000 + b"}"]
    )


def _wrong_encoding(rng: Rng, body: bytes, target: Target) -> tuple[str, str, bytes]:
    packed = gzip.compress(body)
    return rng.choice(
        [
            ("encoding", rng.choice(["br", "zstd", "gzip, gzip", "x" * 300]), body),
            ("not_gzip", "gzip", body),
            ("not_deflate", "deflate", packed),
            ("cut_gzip", "gzip", _corrupt(rng, packed)),
            ("bomb", "gzip", gzip.compress(bytes(target.max_bytes * 20))),
            ("after_gzip", "gzip", packed + b"more"),
        ]
    )


def _wrong_path(rng: Rng, target: Target) -> tuple[str, str]:
    model = f"/v2/models/{target.model}"
    return rng.choice(
        [
            ("POST", "/v2/models/nothing/infer"),
            ("POST", f"{model}/versions/2/infer"),
            ("GET", f"{model}/infer"),
            ("PUT", f"{model}/infer"),
            ("DELETE", model),
            ("POST", f"{model}/infer/"),
            ("POST", "/v2/models//infer"),
            ("POST", f"{model}/versions/1%2f..%2f/infer"),
            ("POST", "/"),
            ("GET", "/v1/models"),
            ("POST", "/v2"),
            ("POST", f"{model}/versions//infer"),
            ("POST", "/v2/repository/models/a/load"),
            ("PATCH", "/metrics"),
            ("POST", "/v2/systemsharedmemory/region/a/register"),
            ("GET", "/v2/cudasharedmemory/status"),
            ("POST", "/v2/models/%00/infer"),
            ("GET", "/v2/models/%ff%fe"),
            ("GET", "/../../etc/passwd"),
        ]
    )


def grpc_case(rng: Rng, target: Target) -> GrpcCase:
    """Return a malformed gRPC message."""
    message = service_pb2.ModelInferRequest(model_name=target.model)
    entry = message.inputs.add(name="image", datatype="FP32", shape=[1, *target.shape])
    raw = target.image(rng).tobytes()
    message.raw_input_contents.append(raw)
    values = np.frombuffer(raw, np.float32).copy()
    values[rng.randrange(len(values))] = rng.choice([np.nan, np.inf])

    def contents(field: str, count: int) -> None:
        del message.raw_input_contents[:]
        getattr(entry.contents, field).extend([b"a" if field == "bytes_contents" else 1] * count)

    def raw_is(data: bytes) -> None:
        message.raw_input_contents[0] = data

    changes: dict[str, Callable[[], Any]] = {
        "name": lambda: setattr(entry, "name", not_in(rng, {"image"})),
        "datatype": lambda: setattr(entry, "datatype", rng.choice(["FP64", "UINT8", "BYTES", "", "fp32"])),
        "shape": lambda: (entry.ClearField("shape"), entry.shape.extend(wrong_shape(rng, target))),
        "truncated": lambda: raw_is(_corrupt(rng, raw)),
        "extra": lambda: raw_is(raw + b"\0"),
        "not_finite": lambda: raw_is(values.tobytes()),
        "no_raw": lambda: message.ClearField("raw_input_contents"),
        "two_raw": lambda: message.raw_input_contents.append(raw),
        "both": lambda: entry.contents.fp32_contents.extend([1.0]),
        "wrong_contents": lambda: contents(rng.choice(["int_contents", "fp64_contents", "bytes_contents"]), 4),
        "few_contents": lambda: contents("fp32_contents", rng.randint(1, 5)),
        "no_inputs": lambda: message.ClearField("inputs"),
        "duplicate": lambda: (message.inputs.append(entry), message.raw_input_contents.append(raw)),
        "model": lambda: setattr(message, "model_name", not_in(rng, {target.model})),
        "version": lambda: setattr(message, "model_version", rng.choice(["2", "latest", "1.0", " 1"])),
        "output": lambda: message.outputs.add(name=not_in(rng, {"logits"})),
        "outputs": lambda: (message.outputs.add(name="logits"), message.outputs.add(name="logits")),
        "classes": lambda: (
            message.outputs.add(name="logits")
            .parameters["classification"]
            .MergeFrom(service_pb2.InferParameter(int64_param=-3))
        ),
        "timeout": lambda: message.parameters["timeout"].MergeFrom(service_pb2.InferParameter(string_param="1")),
        "shared_memory": lambda: entry.parameters["shared_memory_region"].MergeFrom(
            service_pb2.InferParameter(string_param="a")
        ),
        "too_large": lambda: raw_is(bytes(target.max_bytes + 1)),
    }
    kind = rng.choice([*sorted(changes), "garbage", "cut", "method", "refused"])
    if kind in changes:
        changes[kind]()
        return GrpcCase(kind, "ModelInfer", message.SerializeToString())
    if kind == "garbage":
        return GrpcCase(kind, rng.choice(["ModelInfer", "ModelConfig", "ModelReady"]), b"\xff" + rng.randbytes(40))
    if kind == "cut":
        whole = message.SerializeToString()
        return GrpcCase(kind, "ModelInfer", whole[: len(whole) - rng.randint(1, len(raw))])
    refused = ["RepositoryModelLoad", "SystemSharedMemoryRegister", "CudaSharedMemoryStatus", "TraceSetting"]
    return GrpcCase(kind, rng.choice(refused) if kind == "refused" else "NoSuchMethod", b"")


def send_http(address: str, case: HttpCase) -> int:
    """Return the status of the answer."""
    host, _, port = address.rpartition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=30)
    try:
        connection.request(case.method, case.path, case.body, case.headers)
        return connection.getresponse().status
    finally:
        connection.close()


def send_grpc(channel: grpc.Channel, case: GrpcCase) -> str:
    """Return the name of the status."""
    try:
        channel.unary_unary(METHOD + case.method)(case.message, timeout=30)
    except grpc.RpcError as error:
        return str(error.code().name)
    return "OK"


def send_garbage(address: str, data: bytes) -> int:
    """Send bytes that are no HTTP; return the status of the answer, or 0 where there is none."""
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        words = connection.recv(100).split()
    return int(words[1]) if len(words) > 1 else 0
