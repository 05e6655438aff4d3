"""Requests and answers of the protocol as messages of gRPC."""

from collections.abc import Mapping
from typing import Any

from google.protobuf.message import Message
from tritonclient.grpc import service_pb2

from pipeline.serving.refusal import invalid, quoted
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
