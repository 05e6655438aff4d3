"""The life of a server: start, signals, an end that answers what was accepted."""

import asyncio
import contextlib
import functools
import logging
import os
import signal
import socket
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc.aio
import uvicorn
import uvloop

from pipeline.core.errors import UserError
from pipeline.core.processes import num_cores
from pipeline.package.reader import Package
from pipeline.serving.access import VARIABLE, Access, Certificate, load_certificate, read_token
from pipeline.serving.connections import ConnectionGuard
from pipeline.serving.deadlines import TimeLimit
from pipeline.serving.grpc_api import Handlers
from pipeline.serving.http_api import build_app
from pipeline.serving.http_protocol import http_connection
from pipeline.serving.logs import Incidents, configure_logs, log
from pipeline.serving.models import load_models, package_facts
from pipeline.serving.service import Limits, Service, seconds_from_now
from pipeline.serving.sockets import Place, bind, cannot_listen, enough_descriptors, resolve

logger = logging.getLogger(__name__)

BACKLOG = 2048
KEEP_ALIVE = 75
"""Seconds that an idle HTTP connection stays open."""
LAST_BYTES = 1
"""Seconds for answers that are written already to leave."""
VALUE = 24
"""Bytes that a float takes as JSON text at most, with what parts it from the next."""
MIN_JSON = 2**21
"""Bytes of JSON that a request may have on any server, unless an option says otherwise."""
ENVELOPE = 65536
"""Bytes of a request beside its images."""


@dataclass(frozen=True)
class Settings:
    """What is served, where and within which limits."""

    package: Path
    precisions: Sequence[str]
    provider: str
    num_threads: int
    proof_seconds: float
    """That a file may take to be loaded and proved."""
    host: str
    http_port: int
    grpc_port: int
    max_batch: int
    max_bytes: int | None
    """None: what ``max_batch`` images take as JSON text, or the largest picture."""
    max_picture_bytes: int
    max_megapixels: float
    """Of a picture, in millions of pixels."""
    max_json_bytes: int | None
    """None: what one image takes as JSON text, or 2 MiB."""
    max_connections: int
    max_queue: int
    timeout: float
    workers: int | None
    """None: as many as there are CPUs for, at ``num_threads`` each."""
    grace: float
    """Seconds for which what was accepted may go on once the server is told to end."""
    drain_seconds: float
    """For which requests are still taken once the server is told to end and says that it is not ready."""
    log_format: str
    token_file: Path | None
    without_token: bool
    tls_certificate: Path | None
    tls_key: Path | None

    def limits(self, package: Package) -> Limits:
        """Return the limits, with what was left open filled in."""
        height, width = package.image_size
        largest = max(self.max_batch * 3 * height * width * VALUE, self.max_picture_bytes) + ENVELOPE
        max_bytes = largest if self.max_bytes is None else self.max_bytes
        workers = max(num_cores() // self.num_threads, 1) if self.workers is None else self.workers
        one_image = 3 * height * width * VALUE + ENVELOPE
        return Limits(
            max_batch=self.max_batch,
            max_bytes=max_bytes,
            max_picture_bytes=self.max_picture_bytes,
            max_json_bytes=max(one_image, MIN_JSON) if self.max_json_bytes is None else self.max_json_bytes,
            max_connections=enough_descriptors(self.max_connections),
            max_queue=self.max_queue,
            timeout=self.timeout,
            workers=workers,
        )


def run_server(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT.

    Raises:
        UserError: the package is damaged or tampered with, an address cannot be listened at, or is open to strangers,
            or token or certificate are none.
    """
    package = Package.open(settings.package)
    places = [resolve(settings.host, port) for port in (settings.http_port, settings.grpc_port)]
    access = Access(read_token(settings.token_file, os.environ))
    if access.is_open and not places[0].is_loopback and not settings.without_token:
        raise UserError(
            f"--host: got {settings.host}, which others reach; give a token (--token-file FILE, or the "
            f"variable {VARIABLE}), or --without-token where something before this server asks for one"
        )
    certificate = load_certificate(settings.tls_certificate, settings.tls_key)
    limits = settings.limits(package)
    with bind(places[0], "--http-port") as listener:
        bind(places[1], "--grpc-port").close()
        writer = configure_logs(settings.log_format)
        warnings.filterwarnings("ignore", module=r"PIL\.")  # of pictures, which are refused or not
        models = load_models(
            package,
            settings.precisions,
            provider=settings.provider,
            num_threads=settings.num_threads,
            seconds=settings.proof_seconds,
            max_megapixels=settings.max_megapixels,
        )
        guard, incidents = ConnectionGuard(limits.max_connections), Incidents(logger)
        service = Service(
            models,
            limits,
            package_facts(package),
            fmkt_connections=("Open connections over HTTP", lambda: len(guard)),
            fmkt_displaced_connections=("Connections closed for others", lambda: guard.num_displaced),
            fmkt_incidents=("Refusals and cuts that are no inference request's", lambda: incidents.num_seen),
            fmkt_dropped_log_lines=("Log lines that nobody read in time", lambda: writer.num_dropped),
        )
        server = Server(service, settings, access, certificate, guard, incidents)
        sys.setswitchinterval(SWITCH_SECONDS)
        uvloop.run(server.run(listener, *places))


SWITCH_SECONDS = 0.0005
"""For which a thread that reads JSON keeps Python's lock while the event loop waits for it."""
MAX_INT32 = 2**31 - 1
MIN_STREAMS = 100
"""Calls of one connection over gRPC at a time, at least."""
HANDSHAKE_MS = 10_000
"""From a connection's start over gRPC to its first frame."""
IDLE_MS = 60_000
"""For which a connection over gRPC may have no call; a client's library opens another one by itself."""
AGE_MS = 600_000
"""After which a connection over gRPC takes no further calls."""
ALIVE_MS = 30_000
"""Between two questions whether the client of a silent connection over gRPC is still there."""


@dataclass
class Server:
    """A service at its two addresses."""

    service: Service
    settings: Settings
    access: Access
    certificate: Certificate | None
    guard: ConnectionGuard
    incidents: Incidents

    async def run(self, listener: socket.socket, http: Place, rpc: Place) -> None:
        """Serve until a signal says otherwise; a second one cuts the draining short."""
        service, settings = self.service, self.settings
        told: asyncio.Queue[None] = asyncio.Queue()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, told.put_nowait, None)
        rpc_server, rpc_port = self._grpc_server(rpc)
        http_server = await self._start_http(listener, http)
        await rpc_server.start()
        ticking = asyncio.create_task(http_server.main_loop())
        watching = asyncio.create_task(self.guard.watch())
        self._announce(http._replace(port=listener.getsockname()[1]), rpc._replace(port=rpc_port))
        await told.get()
        log(logger, "stopping", accepted=service.num_accepted, drain=settings.drain_seconds, grace=settings.grace)
        service.draining = True
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(told.get(), settings.drain_seconds)
        for each in http_server.servers:
            each.close()  # what listens; connections that are open get their answers
        closing = asyncio.create_task(rpc_server.stop(settings.grace + LAST_BYTES))
        try:
            async with TimeLimit(seconds_from_now(settings.grace)):
                await service.drain()
        except TimeoutError:
            log(logger, "abandoned", logging.WARNING, accepted=service.num_accepted)
        http_server.should_exit = True
        await ticking
        await asyncio.gather(rpc_server.stop(LAST_BYTES), http_server.shutdown([listener]))
        await closing
        watching.cancel()
        service.close()
        log(logger, "stopped")

    def _grpc_server(self, place: Place) -> tuple[Any, int]:
        """Return the server, not started yet, and its port."""
        limits = self.service.limits
        server = grpc.aio.server(
            options=[
                ("grpc.max_receive_message_length", min(limits.max_bytes, MAX_INT32)),
                ("grpc.so_reuseport", 0),  # or a second server could take the same port unnoticed
                ("grpc.max_allowed_incoming_connections", limits.max_connections),
                ("grpc.max_concurrent_streams", max(limits.max_queue + limits.workers, MIN_STREAMS)),
                ("grpc.server_handshake_timeout_ms", HANDSHAKE_MS),
                ("grpc.max_connection_idle_ms", IDLE_MS),
                ("grpc.max_connection_age_ms", AGE_MS),
                ("grpc.max_connection_age_grace_ms", int(min(limits.timeout * 1000, MAX_INT32))),
                ("grpc.keepalive_time_ms", ALIVE_MS),
                ("grpc.keepalive_timeout_ms", HANDSHAKE_MS),
            ],
        )
        server.add_generic_rpc_handlers((Handlers(self.service, self.access, self.incidents),))
        try:
            if self.certificate is None:
                return server, server.add_insecure_port(str(place))
            pair = (self.certificate.key, self.certificate.chain)
            return server, server.add_secure_port(str(place), grpc.ssl_server_credentials([pair]))
        except RuntimeError as error:
            raise cannot_listen(place, "--grpc-port", error) from error

    async def _start_http(self, listener: socket.socket, place: Place) -> uvicorn.Server:
        """Return the server, listening; its own handling of signals, which ends the process by one, is not used."""
        limits, tls = self.service.limits, None if self.certificate is None else self.certificate.context
        config = uvicorn.Config(
            build_app(self.service, self.access, self.incidents),
            http=functools.partial(http_connection, self.guard, self.incidents, limits.max_bytes, tls),  # type: ignore[arg-type]
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="warning",
            access_log=False,
            server_header=False,
            backlog=BACKLOG,
            timeout_keep_alive=KEEP_ALIVE,
            timeout_graceful_shutdown=LAST_BYTES,
        )
        config.load()
        server = uvicorn.Server(config)
        server.lifespan = config.lifespan_class(config)
        try:
            listener.listen(BACKLOG)
            await server.startup([listener])
        except OSError as error:
            raise cannot_listen(place, "--http-port", error.strerror) from error
        return server

    def _announce(self, http: Place, rpc: Place) -> None:
        service = self.service
        if self.access.is_open and not http.is_loopback:
            log(
                logger,
                "exposed",
                logging.WARNING,
                reason="nobody is asked for a token; something before this server must",
            )
        if self.certificate is None and not http.is_loopback:
            log(logger, "unencrypted", logging.WARNING, reason="no TLS; let something before this server encrypt")
        for model in service.models.values():
            log(logger, "model", model=model.name, runtime=model.description, input=model.input.datatype)
        log(logger, "package", facts=dict(service.facts))
        limits = service.limits
        log(logger, "ready", http=str(http), grpc=str(rpc), models=list(service.models), limits=vars(limits))
