"""Requests and answers of the protocol as messages of gRPC."""

from collections.abc import Iterator, Mapping
from typing import Any

from google.protobuf.message import Message
from tritonclient.grpc import service_pb2

from pipeline.serving.refusal import Reason, RefusalError, invalid, quoted
from pipeline.serving.requests import (
    InferRequest,
    InferResponse,
    read_output,
    read_timeout,
    refuse_shared_memory,
)
from pipeline.serving.tensors import InputTensor, to_bytes

CONTENTS = {"FP32": "fp32_contents", "UINT8": "uint_contents", "INT32": "int_contents", "BYTES": "bytes_contents"}
"""The field in which values of a data type lie that are not sent as bytes."""


MAX_FIELDS = 4096
"""Of a message: each may take a hundred times the memory of its bytes, and a request needs few."""
SMALL = 2**16
"""Bytes of a message that are not looked at: what they become is small."""
VARINT, BYTES, FIXED = 0, 2, {1: 8, 5: 4}
"""Kinds of fields on the wire; those of fixed size with it."""


def require_few_fields(data: bytes, kind: type[Message], max_values_bytes: int) -> None:
    """Look through the fields of a large message before it is parsed.

    Args:
        data: the message, of the type ``kind``.
        max_values_bytes: of numbers that do not lie in raw_input_contents.

    Raises:
        RefusalError: there are too many, or it is none.
    """
    if len(data) <= SMALL:
        return
    num_fields = num_bytes = 0
    inside = [(memoryview(data), kind.DESCRIPTOR)]
    while inside:
        view, descriptor = inside.pop()
        for number, content in _fields(view):
            num_fields += 1
            if num_fields > MAX_FIELDS:
                raise RefusalError(Reason.TOO_LARGE, f"more than {MAX_FIELDS} fields in a message, which is the limit")
            field = descriptor.fields_by_number.get(number)
            if field is not None and field.message_type is not None:
                inside.append((content, field.message_type))
            elif field is not None and field.type != field.TYPE_BYTES:
                num_bytes += len(content)
    if num_bytes > max_values_bytes:
        raise RefusalError(
            Reason.TOO_LARGE,
            f"more than {max_values_bytes} bytes of numbers and texts, which is the limit; send raw_input_contents",
        )


def _fields(view: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Yield number and content of each field of a message; the content of a number is left out."""
    position = 0
    while position < len(view):
        tag, position = _varint(view, position)
        kind, size, start = tag & 7, 0, position
        if kind == VARINT:
            _, start = _varint(view, position)
        elif kind == BYTES:
            size, start = _varint(view, position)
        elif kind in FIXED:
            start += FIXED[kind]
        else:
            raise invalid("not a ModelInferRequest: a field of no known kind")
        position = start + size
        if position > len(view):
            raise invalid("not a ModelInferRequest: it is cut short")
        yield tag >> 3, view[start:position]


def _varint(view: memoryview, position: int) -> tuple[int, int]:
    """Return a number of variable length and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(view):
            break
        byte = view[position]
        position += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, position
    raise invalid("not a ModelInferRequest: it is cut short")


def read_request(message: Any) -> InferRequest:
    """Return what the ModelInferRequest ``message`` asks for.

    Raises:
        RefusalError: it is not what the protocol says.
    """
    raw = message.raw_input_contents
    if raw and len(raw) != len(message.inputs):
        raise invalid(f"raw_input_contents: {len(raw)} for {len(message.inputs)} inputs")
    outputs = [read_output(out.name, _parameters(out.parameters), binary=True) for out in message.outputs]
    return InferRequest(
        model=message.model_name,
        version=message.model_version,
        id=message.id,
        inputs=[_read_input(entry, raw[i] if raw else None) for i, entry in enumerate(message.inputs)],
        outputs=outputs,
        binary=True,
        timeout=read_timeout(_parameters(message.parameters)),
    )


def _parameters(parameters: Mapping[str, Any]) -> dict[str, Any]:
    kinds = {name: value.WhichOneof("parameter_choice") for name, value in parameters.items()}
    return {name: getattr(parameters[name], kind) if kind else None for name, kind in kinds.items()}


def _read_input(entry: Any, raw: bytes | None) -> InputTensor:
    where = f"input {quoted(entry.name)}"
    refuse_shared_memory(_parameters(entry.parameters), where)
    fields = [field.name for field, _ in entry.contents.ListFields()]
    if raw is not None and fields:
        raise invalid(f"{where}: has both contents and raw_input_contents")
    wanted = CONTENTS.get(entry.datatype)
    if wanted and any(name != wanted for name in fields):
        raise invalid(f"{where}: its values are in {', '.join(fields)}, expected in {wanted}")
    data = raw if raw is not None else list(getattr(entry.contents, wanted)) if wanted else []
    return InputTensor(entry.name, entry.datatype, tuple(entry.shape), data)


def write_response(response: InferResponse) -> Message:
    """Return the ModelInferResponse of an answer."""
    message = service_pb2.ModelInferResponse(model_name=response.model, model_version=response.version, id=response.id)
    for output in response.outputs:
        message.outputs.add(name=output.name, datatype=output.datatype, shape=output.array.shape)
        message.raw_output_contents.append(to_bytes(output.array))
    return message
