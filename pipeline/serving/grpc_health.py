"""gRPC's own protocol of health, ``grpc.health.v1``: that of the server, and of each model by its name.

Its few messages are made here: the package that brings them asks for another protobuf than Triton's client library.
"""

import asyncio
import contextlib
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import Message

from pipeline.serving.refusal import Reason, RefusalError, quoted
from pipeline.serving.service import Service

HEALTH_SERVICE = "grpc.health.v1.Health"
SERVING, NOT_SERVING, SERVICE_UNKNOWN = 1, 2, 3
WATCH_SECONDS = 0.2
"""Between two looks of a call that watches."""
WATCHERS = 16
"""Calls that may watch at a time; one more ends that which began first."""


def _message_classes() -> tuple[type[Message], type[Message]]:
    """Return request and response, in a pool of their own, since a program may load the same from elsewhere."""
    fields = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="health.proto", package="grpc.health.v1", syntax="proto3")
    request, response = (file.message_type.add(name=f"HealthCheck{kind}") for kind in ("Request", "Response"))
    request.field.add(name="service", number=1, type=fields.TYPE_STRING, label=fields.LABEL_OPTIONAL)
    response.field.add(name="status", number=1, type=fields.TYPE_INT32, label=fields.LABEL_OPTIONAL)  # an enum, as sent
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    made = [pool.FindMessageTypeByName(f"grpc.health.v1.HealthCheck{kind}") for kind in ("Request", "Response")]
    return message_factory.GetMessageClass(made[0]), message_factory.GetMessageClass(made[1])


HealthRequest, HealthResponse = _message_classes()


class Health:
    """What the methods answer; ``""`` is the server."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.watchers: dict[asyncio.Event, None] = {}  # set: to end

    def _status(self, name: str) -> int:
        if name and name not in self.service.models:
            return SERVICE_UNKNOWN
        return SERVING if self.service.is_ready else NOT_SERVING

    async def check(self, request: Any, _: Any) -> Message:
        """Say whether requests are taken."""
        status = self._status(request.service)
        if status == SERVICE_UNKNOWN:
            raise RefusalError(Reason.NOT_FOUND, f"service {quoted(request.service)}: not known here")
        return HealthResponse(status=status)

    async def watch(self, request: Any, context: Any) -> Message:
        """Say so at once, and again when it changes, until the client goes, others want its place, or the end."""
        if len(self.watchers) >= WATCHERS:
            longest = next(iter(self.watchers))
            del self.watchers[longest]
            longest.set()
        displaced = asyncio.Event()
        self.watchers[displaced] = None
        try:
            await self._tell(request.service, context, displaced)
        finally:
            self.watchers.pop(displaced, None)
        raise RefusalError(Reason.OVERLOADED, "others watch as well, or the server ends; try again")

    async def _tell(self, name: str, context: Any, displaced: asyncio.Event) -> None:
        told = None
        while not displaced.is_set() and not self.service.stopping:
            status = self._status(name)
            if status != told:
                await context.write(HealthResponse(status=status).SerializeToString())
                told = status
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(displaced.wait(), WATCH_SECONDS)
