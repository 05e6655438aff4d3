"""The protocol over gRPC, with the messages of Triton's client library."""

import functools
from collections.abc import Awaitable, Callable
from typing import Any, NoReturn
from urllib.parse import unquote

import grpc
import grpc.aio
from google.protobuf import json_format
from google.protobuf.message import DecodeError, Message
from tritonclient.grpc import service_pb2

from pipeline.serving.access import UNKNOWN, Access
from pipeline.serving.grpc_health import HEALTH_SERVICE, Health, HealthRequest
from pipeline.serving.logs import Incidents
from pipeline.serving.messages import read_request, require_few_fields, write_response
from pipeline.serving.refusal import Reason, RefusalError, invalid
from pipeline.serving.requests import Transport
from pipeline.serving.service import Arrival, Entry, Service, seconds_from_now

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

MESSAGE_SECONDS = 5.0
"""For which a call that asks for no inference may keep its message back."""
CALLS_BESIDE = 64
"""Calls that may do so at a time; one more ends the wait of the one that began first."""
BRIEF_MESSAGE = 2**20
"""Bytes of a request that are read within milliseconds."""

OPEN_METHODS = {
    f"/{HEALTH_SERVICE}/Check",
    f"/{HEALTH_SERVICE}/Watch",
    f"/{SERVICE}/ServerLive",
    f"/{SERVICE}/ServerReady",
}
"""Those that ask for no token."""

Method = Callable[[Any, Any], Awaitable[Message]]


class Handlers(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Every method of the protocol, and of gRPC's own protocol of health.

    Each takes a stream, whatever it is to its client: only so the server learns of a call before its message is there,
    and can bound the wait for it. Messages are parsed here, since gRPC takes one that cannot be parsed for an error of
    the server.
    """

    def __init__(self, service: Service, access: Access, incidents: Incidents) -> None:
        self.core = service
        self.access = access
        self.incidents = incidents
        self.waiting: dict[Arrival, None] = {}  # the longest waiting first
        methods = Methods(service)
        health = Health(service)
        watched = functools.partial(self._answer, f"/{HEALTH_SERVICE}/Watch", HealthRequest, health.watch)
        checked = functools.partial(self._answer, f"/{HEALTH_SERVICE}/Check", HealthRequest, health.check)
        self.handlers = {
            f"/{SERVICE}/ModelInfer": grpc.stream_unary_rpc_method_handler(self._infer),
            f"/{HEALTH_SERVICE}/Check": grpc.stream_unary_rpc_method_handler(checked),
            f"/{HEALTH_SERVICE}/Watch": grpc.stream_stream_rpc_method_handler(watched),
        }
        for method in service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods:
            answer = getattr(methods, method.name, None) or _refusing(_refusal(method.name))
            path, kind = f"/{SERVICE}/{method.name}", getattr(service_pb2, method.input_type.name)
            answered = functools.partial(self._answer, path, kind, answer)
            handler = (
                grpc.stream_stream_rpc_method_handler
                if method.client_streaming
                else grpc.stream_unary_rpc_method_handler
            )
            self.handlers.setdefault(path, handler(answered))

    def service(self, details: Any) -> Any:
        """Return what answers a call, before anything is read of it."""
        if not self.access.is_open and details.method not in OPEN_METHODS:
            fields = dict(details.invocation_metadata)
            given = fields.get("authorization", b"")
            given = given.encode() if isinstance(given, str) else given
            if not self.access.allows(given):
                refuse = functools.partial(self._refuse_stranger, details.method, self.access.why_not(given))
                return grpc.stream_stream_rpc_method_handler(refuse)
        return self.handlers.get(details.method)

    async def _refuse_stranger(self, path: str, why: str, _: Any, context: Any) -> None:
        self._log(path, context, "UNAUTHENTICATED", why)
        await context.abort(grpc.StatusCode.UNAUTHENTICATED, UNKNOWN)

    def _log(self, path: str, context: Any, status: str, reason: str) -> None:
        address = unquote(context.peer().partition(":")[2])
        self.incidents.log("refused", transport=GRPC.name, address=address, path=path, status=status, reason=reason)

    async def _infer(self, _: Any, context: Any) -> bytes:
        try:
            with self.core.accepted(GRPC) as entry:
                return _serialized(await self._inferred(entry, context))
        except RefusalError as error:
            return await _abort(context, error)

    async def _inferred(self, entry: Entry, context: Any) -> Message:
        remaining = context.time_remaining()
        if remaining is not None:
            entry.deadline = min(entry.deadline, seconds_from_now(remaining))
        async with self.core.arriving(entry):
            data = await context.read()
        require_few_fields(_content(data), service_pb2.ModelInferRequest, self.core.limits.max_json_bytes)
        message = _parsed(service_pb2.ModelInferRequest, data)
        entry.model = self.core.find(message.model_name, message.model_version).name
        read = functools.partial(read_request, message)
        request = await self.core.read(read, entry.deadline, is_brief=len(data) <= BRIEF_MESSAGE)
        return write_response(await self.core.infer(request, entry))

    async def _answer(self, path: str, kind: type[Message], method: Method, _: Any, context: Any) -> bytes:
        """Answer a call of ``path`` by ``method``, or end it with the status that its refusal stands for."""
        try:
            return _serialized(await method(_parsed(kind, await self._read(context)), context))
        except RefusalError as error:
            self._log(path, context, GRPC.statuses[error.reason], str(error))
            return await _abort(context, error)

    async def _read(self, context: Any) -> Any:
        if len(self.waiting) >= CALLS_BESIDE:
            longest = next(iter(self.waiting))
            del self.waiting[longest]
            longest.end()
        async with Arrival(self.waiting, seconds_from_now(MESSAGE_SECONDS)):
            return await context.read()


def _refusal(method: str) -> RefusalError:
    text = next((text for name, text in REFUSED.items() if method.startswith(name)), "not offered")
    return RefusalError(Reason.UNSUPPORTED, f"{method}: {text}")


def _refusing(error: RefusalError) -> Method:
    async def refuse(_: Any, __: Any) -> Message:
        raise error

    return refuse


def _serialized(message: Message) -> bytes:
    return message.SerializeToString()  # type: ignore[no-any-return]


async def _abort(context: Any, error: RefusalError) -> NoReturn:
    await context.abort(getattr(grpc.StatusCode, GRPC.statuses[error.reason]), str(error))
    raise AssertionError


def _content(data: Any) -> bytes:
    if data is grpc.aio.EOF:
        raise invalid("the call ended without a message")
    return data  # type: ignore[no-any-return]


def _parsed(kind: type[Message], data: Any) -> Any:
    try:
        return kind.FromString(_content(data))
    except DecodeError as error:
        raise invalid(f"not a {kind.__name__}: {error}") from error


class Methods:
    """What each method answers but ModelInfer."""

    def __init__(self, service: Service) -> None:
        self.service = service

    async def ServerLive(self, _: Any, __: Any) -> Message:  # noqa: N802
        """Say that the process answers."""
        return service_pb2.ServerLiveResponse(live=True)

    async def ServerReady(self, _: Any, __: Any) -> Message:  # noqa: N802
        """Say whether requests are taken."""
        return service_pb2.ServerReadyResponse(ready=self.service.is_ready)

    async def ModelReady(self, request: Any, _: Any) -> Message:  # noqa: N802
        """Say whether a model takes requests; one that is not there does not."""
        try:
            self.service.find(request.name, request.version)
        except RefusalError:
            return service_pb2.ModelReadyResponse(ready=False)
        return service_pb2.ModelReadyResponse(ready=self.service.is_ready)

    async def ServerMetadata(self, _: Any, __: Any) -> Message:  # noqa: N802
        """Describe the server."""
        return _message(self.service.metadata(), service_pb2.ServerMetadataResponse())

    async def ModelMetadata(self, request: Any, _: Any) -> Message:  # noqa: N802
        """Describe a model."""
        content = self.service.find(request.name, request.version).metadata()
        return _message(content, service_pb2.ModelMetadataResponse())

    async def ModelConfig(self, request: Any, _: Any) -> Message:  # noqa: N802
        """Return a model's configuration."""
        content = {"config": self.service.config(request.name, request.version)}
        return _message(content, service_pb2.ModelConfigResponse())

    async def ModelStatistics(self, request: Any, _: Any) -> Message:  # noqa: N802
        """Return the statistics of a model, or of all."""
        content = self.service.statistics(request.name, request.version)
        return _message(content, service_pb2.ModelStatisticsResponse())

    async def RepositoryIndex(self, request: Any, _: Any) -> Message:  # noqa: N802
        """List the models."""
        content = {"models": self.service.index(only_ready=request.ready)}
        return _message(content, service_pb2.RepositoryIndexResponse())


def _message(content: dict[str, Any], message: Message) -> Message:
    return json_format.ParseDict(content, message)
