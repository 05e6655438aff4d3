"""Requests and answers of the protocol as bytes of HTTP: JSON, followed by tensors in binary."""

import json
import zlib
from collections.abc import Mapping
from typing import Any, TypeVar

from pipeline.serving.json_text import Numbers, read_document
from pipeline.serving.refusal import Reason, RefusalError, invalid, quoted
from pipeline.serving.requests import (
    InferRequest,
    InferResponse,
    WantedOutput,
    read_output,
    read_timeout,
    refuse_shared_memory,
)
from pipeline.serving.tensors import InputTensor, to_bytes

HEADER_LENGTH = "inference-header-content-length"
BINARY_TYPE = "application/octet-stream"
JSON_TYPE = "application/json"
WINDOWS = {"gzip": zlib.MAX_WBITS | 16, "deflate": zlib.MAX_WBITS}
"""How zlib is told which format a body has."""

Kind = TypeVar("Kind")


def decompressed(body: bytes | bytearray, encoding: str, max_bytes: int) -> bytes | bytearray:
    """Return ``body``, which a client compressed by ``encoding``, without ever holding more than ``max_bytes`` of it.

    Raises:
        RefusalError: the encoding is unknown, the bytes are not of it, or too many come out.
    """
    if encoding in {"", "identity"}:
        return body
    if encoding not in WINDOWS:
        known = ", ".join(WINDOWS)
        raise RefusalError(Reason.ENCODING, f"content-encoding {quoted(encoding)}: known are {known}, identity")
    stream = zlib.decompressobj(WINDOWS[encoding])
    try:
        content = stream.decompress(body, max_bytes + 1)
    except zlib.error as error:
        raise invalid(f"the body is not {encoding}, as its content-encoding says ({error})") from error
    if len(content) > max_bytes:
        raise too_large(max_bytes)
    if not stream.eof or stream.unused_data:
        raise invalid(f"the {encoding} body is cut short, or goes on after its end")
    return content


def too_large(max_bytes: int) -> RefusalError:
    """Return the refusal of a body above the limit."""
    return RefusalError(Reason.TOO_LARGE, f"the body has more than {max_bytes} bytes, which is the limit")


def too_much_json(max_bytes: int) -> RefusalError:
    """Return the refusal of JSON above the limit."""
    return RefusalError(
        Reason.TOO_LARGE,
        f"more than {max_bytes} bytes of JSON, which is the limit; send tensors and image files as binary data",
    )


def read_json(body: bytes | bytearray, max_bytes: int, *, size: int | None = None) -> dict[str, Any]:
    """Return the JSON object in the first ``size`` bytes of ``body``, None: all, as `read_document` reads it.

    Raises:
        RefusalError: it is none, or too much.
    """
    size = len(body) if size is None else size
    if size > max_bytes:
        raise too_much_json(max_bytes)
    try:
        document = read_document(body if size == len(body) else body[:size])
    except ValueError as error:
        raise invalid(f"not valid JSON: {error}") from error
    if not isinstance(document, dict):
        raise invalid(f"the body is a JSON {type(document).__name__}, expected an object")
    return document


def read_request(
    body: bytes | bytearray, header_length: str | None, model: str, version: str, *, max_json_bytes: int
) -> InferRequest:
    """Return the request in ``body``, whose JSON takes ``header_length`` bytes, or all of them.

    Raises:
        RefusalError: it is not what the protocol says.
    """
    end = json_size(len(body), header_length)
    document = read_json(body, max_json_bytes, size=end)
    parameters = _get(document, "parameters", dict, {}, "request")
    binary = _get(parameters, "binary_data_output", bool, False, "request parameters")  # noqa: FBT003
    tensors = _Binary(memoryview(body)[end:])
    request = InferRequest(
        model=model,
        version=version,
        id=_get(document, "id", str, "", "request"),
        inputs=[_read_input(entry, tensors) for entry in _objects(document, "inputs")],
        outputs=[_read_output(entry, binary=binary) for entry in _objects(document, "outputs")],
        binary=binary,
        timeout=read_timeout(parameters),
    )
    if len(tensors.rest):
        raise invalid(f"{len(tensors.rest)} bytes follow the JSON and the inputs' binary data")
    return request


def json_size(size: int, header_length: str | None) -> int:
    """Return how many bytes of a body of ``size`` are JSON, which are all where ``header_length`` is None.

    Raises:
        RefusalError: it is no length, or more than there is.
    """
    if header_length is None:
        return size
    text = header_length
    if not (text.isascii() and text.isdigit() and len(text) < 20 and 0 < int(text) <= size):
        raise invalid(f"Inference-Header-Content-Length: {quoted(text)}, expected 1 to {size}, the size of the body")
    return int(text)


class _Binary:
    """The part of a body behind its JSON, which inputs take one after the other."""

    def __init__(self, rest: memoryview) -> None:
        self.rest = rest

    def take(self, size: int, name: str) -> memoryview:
        if not 0 <= size <= len(self.rest):
            raise invalid(
                f"input {quoted(name)}: binary_data_size is {quoted(size)}, the body has {len(self.rest)} left"
            )
        taken, self.rest = self.rest[:size], self.rest[size:]
        return taken


def _objects(document: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    entries = _get(document, key, list, [], "request")
    if not all(isinstance(entry, dict) for entry in entries):
        raise invalid(f"{key}: expected a list of objects")
    return entries


def _get(document: Mapping[str, Any], key: str, kind: type[Kind], default: Kind | None, where: str) -> Kind:
    """Return ``document[key]``, which must be of type ``kind``; without a default it must be there."""
    value = document.get(key, default)
    if type(value) is not kind:
        found = f"is {quoted(value)}" if key in document else "is missing"
        raise invalid(f"{where}: {key!r} {found}, expected {NAMES[kind]}")
    return value


NAMES: dict[type, str] = {
    bool: "true or false",
    dict: "an object",
    int: "a whole number",
    list: "a list",
    str: "a text",
}


def _read_input(entry: dict[str, Any], binary: _Binary) -> InputTensor:
    name = _get(entry, "name", str, None, "input")
    where = f"input {quoted(name)}"
    shape = _get(entry, "shape", list, None, where)
    if any(type(size) is not int for size in shape):
        raise invalid(f"{where}: shape {quoted(shape)}, expected whole numbers")
    parameters = _get(entry, "parameters", dict, {}, where)
    refuse_shared_memory(parameters, where)
    data: memoryview | list[Any] | Numbers
    if "binary_data_size" in parameters:
        if "data" in entry:
            raise invalid(f"{where}: has both data and a binary_data_size")
        data = binary.take(_get(parameters, "binary_data_size", int, None, where), name)
    elif isinstance(entry.get("data"), Numbers):
        data = entry["data"]
    else:
        data = _get(entry, "data", list, None, where)
    return InputTensor(name, _get(entry, "datatype", str, None, where), shape, data)


def _read_output(entry: dict[str, Any], *, binary: bool) -> WantedOutput:
    return read_output(entry.get("name"), _get(entry, "parameters", dict, {}, "output"), binary=binary)


def write_response(response: InferResponse) -> tuple[bytes, dict[str, str]]:
    """Return body and headers of an answer."""
    outputs, parts = [], []
    for output in response.outputs:
        entry: dict[str, Any] = {"name": output.name, "datatype": output.datatype, "shape": list(output.array.shape)}
        if output.binary:
            part = to_bytes(output.array)
            entry["parameters"] = {"binary_data_size": len(part)}
            parts.append(part)
        else:
            entry["data"] = output.array.ravel().tolist()
        outputs.append(entry)
    document: dict[str, Any] = {"model_name": response.model, "model_version": response.version, "outputs": outputs}
    if response.id:
        document["id"] = response.id
    text = json.dumps(document).encode()
    if not parts:
        return text, {"content-type": JSON_TYPE}
    return b"".join([text, *parts]), {"content-type": BINARY_TYPE, HEADER_LENGTH: str(len(text))}
