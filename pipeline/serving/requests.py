"""Requests and answers between the transports and the service."""

from typing import Any, NamedTuple

from numpy.typing import NDArray

from pipeline.serving.refusal import Reason, RefusalError, invalid, quoted
from pipeline.serving.tensors import InputTensor, TensorSpec, unknown_output

SHARED_MEMORY = "shared_memory_region"


class Transport(NamedTuple):
    """How one transport names what came of a request."""

    name: str
    success: str | int
    failure: str | int
    """When the server itself failed."""
    cancelled: str | int
    """When the client went away."""
    statuses: dict[Reason, Any]


class WantedOutput(NamedTuple):
    """An output that a request asks for."""

    name: str
    binary: bool
    """Whether its bytes shall follow the JSON of an HTTP answer; over gRPC they always do."""
    num_classes: int
    """How many of the largest to return as texts; 0: the logits themselves."""


class InferRequest(NamedTuple):
    """A request, nothing of its content checked yet."""

    model: str
    version: str
    """Empty: any."""
    id: str
    inputs: list[InputTensor]
    outputs: list[WantedOutput]
    """Empty: all, as bytes if ``binary``."""
    binary: bool
    timeout: float | None
    """Seconds after which the client has no use for the answer; None: no such limit."""


class OutputTensor(NamedTuple):
    """A result."""

    name: str
    datatype: str
    array: NDArray[Any]
    binary: bool


class InferResponse(NamedTuple):
    """The results of a request."""

    model: str
    version: str
    id: str
    outputs: list[OutputTensor]


def read_output(name: object, parameters: dict[str, Any], *, binary: bool) -> WantedOutput:
    """Return the output that a request describes so.

    Raises:
        RefusalError: a parameter has a wrong type or value.
    """
    refuse_shared_memory(parameters, f"output {quoted(name)}")
    count = parameters.get("classification", 0)
    if type(count) is not int or count < 0:
        raise invalid(f"output {quoted(name)}: classification is {quoted(count)}, expected a number of classes")
    as_bytes = parameters.get("binary_data", binary)
    if not isinstance(as_bytes, bool):
        raise invalid(f"output {quoted(name)}: binary_data is {quoted(as_bytes)}, expected true or false")
    if not isinstance(name, str):
        raise invalid(f"output name {quoted(name)}: expected a text")
    return WantedOutput(name, as_bytes, count)


def refuse_shared_memory(parameters: dict[str, Any], where: str) -> None:
    """Raise RefusalError if ``parameters`` speak of shared memory."""
    if SHARED_MEMORY in parameters:
        raise RefusalError(Reason.UNSUPPORTED, f"{where}: shared memory is not offered; send the data in the request")


def read_timeout(parameters: dict[str, Any]) -> float | None:
    """Return the ``timeout`` parameter, which is in microseconds, in seconds; 0 is no limit.

    Raises:
        RefusalError: it is no count of microseconds.
    """
    microseconds = parameters.get("timeout", 0)
    if type(microseconds) is not int or not 0 <= microseconds < 2**63:
        raise invalid(f"timeout: {quoted(microseconds)}, expected a number of microseconds")
    return microseconds / 1e6 if microseconds else None


def checked_outputs(request: InferRequest, spec: TensorSpec) -> WantedOutput:
    """Return the one output that ``request`` asks for.

    Raises:
        RefusalError: it asks for an output that is not there, or for one twice.
    """
    if not request.outputs:
        return WantedOutput(spec.name, request.binary, 0)
    for output in request.outputs:
        if output.name != spec.name:
            raise unknown_output(output.name, spec.name)
    if len(request.outputs) > 1:
        raise invalid(f"output {spec.name!r}: asked for {len(request.outputs)} times")
    return request.outputs[0]
