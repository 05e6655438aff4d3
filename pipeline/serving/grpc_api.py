"""The protocol over gRPC, with the messages of Triton's client library."""

import functools
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import grpc.aio
from google.protobuf import json_format
from google.protobuf.message import DecodeError, Message
from tritonclient.grpc import service_pb2

from pipeline.serving.messages import read_request, write_response
from pipeline.serving.refusal import Reason, RefusalError, invalid
from pipeline.serving.requests import Transport
from pipeline.serving.service import Service, seconds_from_now

SERVICE = "inference.GRPCInferenceService"
GRPC = Transport(
    "grpc",
    success="OK",
    failure="INTERNAL",
    cancelled="CANCELLED",
    statuses={
        Reason.INVALID: "INVALID_ARGUMENT",
        Reason.NOT_FOUND: "NOT_FOUND",
        Reason.UNSUPPORTED: "UNIMPLEMENTED",
        Reason.ENCODING: "UNIMPLEMENTED",
        Reason.TOO_LARGE: "RESOURCE_EXHAUSTED",
        Reason.SLOW: "DEADLINE_EXCEEDED",
        Reason.OVERLOADED: "UNAVAILABLE",
        Reason.STOPPING: "UNAVAILABLE",
        Reason.DEADLINE: "DEADLINE_EXCEEDED",
    },
)
REFUSED = {
    "ModelStreamInfer": "streams are not offered; use ModelInfer",
    "RepositoryModelLoad": "models are loaded when the server starts",
    "RepositoryModelUnload": "models are loaded when the server starts",
    "SystemSharedMemory": "shared memory is not offered; send the data in the request",
    "CudaSharedMemory": "shared memory is not offered; send the data in the request",
    "TraceSetting": "tracing is not offered",
    "LogSettings": "log settings are those of the server's command line",
}
"""Beginnings of the names of methods that are not offered."""

Method = Callable[[Any, Any], Awaitable[Message]]


def build_handler(service: Service) -> Any:
    """Return a generic handler for every method of the protocol.

    Messages are parsed here rather than by gRPC, for which one that cannot be parsed is an error of the server.
    """
    methods = Methods(service)
    handlers = {}
    for method in service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods:
        if method.client_streaming:
            handlers[method.name] = grpc.stream_stream_rpc_method_handler(_refusing_stream(_refusal(method.name)))
            continue
        message = getattr(service_pb2, method.input_type.name)
        answer = getattr(methods, method.name, None) or _refusing(_refusal(method.name))
        handlers[method.name] = grpc.unary_unary_rpc_method_handler(
            functools.partial(_answered, message, answer), response_serializer=_serialized
        )
    return grpc.method_handlers_generic_handler(SERVICE, handlers)


def _refusal(method: str) -> RefusalError:
    text = next((text for name, text in REFUSED.items() if method.startswith(name)), "not offered")
    return RefusalError(Reason.UNSUPPORTED, f"{method}: {text}")


def _refusing(error: RefusalError) -> Method:
    async def refuse(_: Message, __: Any) -> Message:
        raise error

    return refuse


def _refusing_stream(error: RefusalError) -> Callable[[Any, Any], AsyncIterator[bytes]]:
    async def refuse(_: Any, context: Any) -> AsyncIterator[bytes]:
        await _abort(context, error)
        yield b""

    return refuse


def _serialized(message: Message) -> bytes:
    return message.SerializeToString()  # type: ignore[no-any-return]


async def _answered(message: type[Message], method: Method, data: bytes, context: Any) -> Message | None:
    """Answer a request by ``method``, or end it with the status that its refusal stands for."""
    try:
        return await method(functools.partial(_parsed, message, data), context)
    except RefusalError as error:
        await _abort(context, error)
    return None


async def _abort(context: Any, error: RefusalError) -> None:
    await context.abort(getattr(grpc.StatusCode, GRPC.statuses[error.reason]), str(error))


def _parsed(message: type[Message], data: bytes) -> Any:
    try:
        return message.FromString(data)
    except DecodeError as error:
        raise invalid(f"not a {message.__name__}: {error}") from error


class Methods:
    """What each method answers; each is given a function that parses its request."""

    def __init__(self, service: Service) -> None:
        self.service = service

    async def ServerLive(self, _: Any, __: Any) -> Message:  # noqa: N802
        """Say that the process answers."""
        return service_pb2.ServerLiveResponse(live=True)

    async def ServerReady(self, _: Any, __: Any) -> Message:  # noqa: N802
        """Say whether requests are taken."""
        return service_pb2.ServerReadyResponse(ready=not self.service.stopping)

    async def ModelReady(self, parse: Any, _: Any) -> Message:  # noqa: N802
        """Say whether a model takes requests; one that is not there does not."""
        request = parse()
        try:
            self.service.find(request.name, request.version)
        except RefusalError:
            return service_pb2.ModelReadyResponse(ready=False)
        return service_pb2.ModelReadyResponse(ready=not self.service.stopping)

    async def ServerMetadata(self, _: Any, __: Any) -> Message:  # noqa: N802
        """Describe the server."""
        return _message(self.service.metadata(), service_pb2.ServerMetadataResponse())

    async def ModelMetadata(self, parse: Any, _: Any) -> Message:  # noqa: N802
        """Describe a model."""
        request = parse()
        content = self.service.find(request.name, request.version).metadata()
        return _message(content, service_pb2.ModelMetadataResponse())

    async def ModelConfig(self, parse: Any, _: Any) -> Message:  # noqa: N802
        """Return a model's configuration."""
        request = parse()
        content = {"config": self.service.config(request.name, request.version)}
        return _message(content, service_pb2.ModelConfigResponse())

    async def ModelStatistics(self, parse: Any, _: Any) -> Message:  # noqa: N802
        """Return the statistics of a model, or of all."""
        request = parse()
        content = self.service.statistics(request.name, request.version)
        return _message(content, service_pb2.ModelStatisticsResponse())

    async def RepositoryIndex(self, parse: Any, _: Any) -> Message:  # noqa: N802
        """List the models."""
        content = {"models": self.service.index(only_ready=parse().ready)}
        return _message(content, service_pb2.RepositoryIndexResponse())

    async def ModelInfer(self, parse: Any, context: Any) -> Message:  # noqa: N802
        """Infer."""
        with self.service.accepted(GRPC) as entry:
            message = parse()
            entry.model = self.service.find(message.model_name, message.model_version).name
            remaining = context.time_remaining()
            if remaining is not None:
                entry.deadline = min(entry.deadline, seconds_from_now(remaining))
            return write_response(await self.service.infer(read_request(message), entry))


def _message(content: dict[str, Any], message: Message) -> Message:
    return json_format.ParseDict(content, message)
