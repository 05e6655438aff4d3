"""Requests and answers between the transports and the service."""

from collections import Counter
from collections.abc import Sequence
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
    num_largest: int
    """How many of the largest values to return as texts with their classes; 0: the values themselves."""


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


def checked_outputs(
    request: InferRequest, specs: Sequence[TensorSpec], classification_output: str | None
) -> list[WantedOutput]:
    """Return the outputs that ``request`` asks for, in its order; all of them where it names none.

    Args:
        specs: the outputs that there are.
        classification_output: the one whose largest values have class names; None: none has.

    Raises:
        RefusalError: it asks for an output that is not there, for one twice, or for classes where there are none.
    """
    if not request.outputs:
        return [WantedOutput(spec.name, request.binary, 0) for spec in specs]
    known = [spec.name for spec in specs]
    counts = Counter(output.name for output in request.outputs)
    for output in request.outputs:
        if output.name not in known:
            raise unknown_output(output.name, known)
        if counts[output.name] > 1:
            raise invalid(f"output {output.name!r}: asked for {counts[output.name]} times")
        if output.num_largest and output.name != classification_output:
            raise invalid(
                f"output {output.name!r}: its values are not those of classes, so classification has no sense"
            )
    return request.outputs
