"""The life of a server: start, signals, an end that answers what was accepted."""

import asyncio
import logging
import signal
import socket
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc.aio
import uvicorn
import uvloop

from pipeline.core.processes import num_cores
from pipeline.package.reader import Package
from pipeline.serving.deadlines import TimeLimit
from pipeline.serving.grpc_api import build_handler
from pipeline.serving.http_api import build_app
from pipeline.serving.http_protocol import JoiningProtocol
from pipeline.serving.logs import configure_logs, log
from pipeline.serving.models import load_models, package_facts
from pipeline.serving.service import Limits, Service, seconds_from_now
from pipeline.serving.sockets import Place, bind, cannot_listen, resolve

logger = logging.getLogger(__name__)

BACKLOG = 2048
KEEP_ALIVE = 75
"""Seconds that an idle HTTP connection stays open."""
LAST_BYTES = 1
"""Seconds for answers that are written already to leave."""
VALUE = 24
"""Bytes that a float takes as JSON text at most, with what parts it from the next."""
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
    max_queue: int
    timeout: float
    workers: int | None
    """None: as many as there are CPUs for, at ``num_threads`` each."""
    grace: float
    """Seconds for which what was accepted may go on once the server is told to end."""
    log_format: str

    def limits(self, package: Package) -> Limits:
        """Return the limits, with what was left open filled in."""
        height, width = package.image_size
        largest = max(self.max_batch * 3 * height * width * VALUE, self.max_picture_bytes) + ENVELOPE
        max_bytes = largest if self.max_bytes is None else self.max_bytes
        workers = max(num_cores() // self.num_threads, 1) if self.workers is None else self.workers
        return Limits(self.max_batch, max_bytes, self.max_picture_bytes, self.max_queue, self.timeout, workers)


def run_server(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT.

    Raises:
        UserError: the package is damaged or tampered with, or an address cannot be listened at.
    """
    package = Package.open(settings.package)
    places = [resolve(settings.host, port) for port in (settings.http_port, settings.grpc_port)]
    with bind(places[0], "--http-port") as listener:
        bind(places[1], "--grpc-port").close()
        configure_logs(settings.log_format)
        warnings.filterwarnings("ignore", module=r"PIL\.")  # of pictures, which are refused or not; the log is JSON
        models = load_models(
            package,
            settings.precisions,
            provider=settings.provider,
            num_threads=settings.num_threads,
            seconds=settings.proof_seconds,
            max_megapixels=settings.max_megapixels,
        )
        service = Service(models, settings.limits(package), package_facts(package))
        uvloop.run(_serve(service, settings, listener, *places))


RPCS_BESIDE = 16
"""Calls over gRPC beside those that wait or are computed, such as those of health."""
MAX_INT32 = 2**31 - 1


async def _serve(service: Service, settings: Settings, listener: socket.socket, http: Place, rpc: Place) -> None:
    ending = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ending.set)
    rpc_server, rpc_port = _grpc_server(service, rpc)
    http_server = await _start_http(service, listener, http)
    await rpc_server.start()
    ticking = asyncio.create_task(http_server.main_loop())
    _announce(service, http._replace(port=listener.getsockname()[1]), rpc._replace(port=rpc_port))
    await ending.wait()
    log(logger, "stopping", accepted=service.num_accepted, grace=settings.grace)
    try:
        async with TimeLimit(seconds_from_now(settings.grace)):
            await service.drain()
    except TimeoutError:
        log(logger, "abandoned", logging.WARNING, accepted=service.num_accepted)
    http_server.should_exit = True
    await ticking
    await asyncio.gather(rpc_server.stop(LAST_BYTES), http_server.shutdown([listener]))
    service.workers.close()
    log(logger, "stopped")


def _grpc_server(service: Service, place: Place) -> tuple[Any, int]:
    """Return the server, not started yet, and its port."""
    limits = service.limits
    server = grpc.aio.server(
        maximum_concurrent_rpcs=limits.max_queue + service.workers.num_workers + RPCS_BESIDE,
        options=[
            ("grpc.max_receive_message_length", min(limits.max_bytes, MAX_INT32)),
            ("grpc.so_reuseport", 0),  # or a second server could take the same port unnoticed
        ],
    )
    server.add_generic_rpc_handlers((build_handler(service),))
    try:
        return server, server.add_insecure_port(str(place))
    except RuntimeError as error:
        raise cannot_listen(place, "--grpc-port", error) from error


async def _start_http(service: Service, listener: socket.socket, place: Place) -> uvicorn.Server:
    """Return the server, listening; its own handling of signals, which would end the process by one, stays unused."""
    config = uvicorn.Config(
        build_app(service),
        http=JoiningProtocol,
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


def _announce(service: Service, http: Place, rpc: Place) -> None:
    if not http.is_loopback:
        log(logger, "exposed", logging.WARNING, reason="no authentication and no TLS; put a proxy before this address")
    for model in service.models.values():
        log(logger, "model", model=model.name, runtime=model.description, input=model.input.datatype)
    log(logger, "package", facts=dict(service.facts))
    limits = service.limits
    log(logger, "ready", http=str(http), grpc=str(rpc), models=list(service.models), limits=vars(limits))
