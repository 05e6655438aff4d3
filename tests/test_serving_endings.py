"""An answer arrives whole, however its client reads it and ends the connection, encrypted or not."""

import asyncio
import contextlib
import logging
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
import uvloop
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from uvicorn.server import ServerState

from pipeline.serving import connections, http_protocol
from pipeline.serving.connections import ConnectionGuard
from pipeline.serving.http_protocol import http_connection
from pipeline.serving.logs import FIELDS, Incidents
from tests.helpers import make_certificate

LARGE = 600_000
"""Bytes of an answer: more than what the system holds for a connection here."""
HELD = 100_000
"""Bytes that it holds, half of what Linux makes of it."""
CONNECTIONS = 4


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer after all of the request, with many bytes or few, at once or late."""
    while (await receive()).get("more_body"):
        pass
    if scope["path"] == "/late":
        await asyncio.sleep(0.6)
    await Response(b"x" * LARGE if scope["path"] == "/large" else b"answered")(scope, receive, send)


class Served:
    """A server in a thread; ``context`` is how it is encrypted."""

    def __init__(self, context: ssl.SSLContext | None, certificate: Path) -> None:
        self.context = context
        self.certificate = certificate
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, HELD)  # of its connections too
        self.guard = ConnectionGuard(CONNECTIONS)
        self.incidents = Incidents(logging.getLogger(__name__))
        self.is_up = threading.Event()
        self.thread = threading.Thread(target=lambda: uvloop.run(self._serve()))
        self.thread.start()
        assert self.is_up.wait(20)

    async def _serve(self) -> None:
        self.loop, self.ending = asyncio.get_running_loop(), asyncio.Event()
        config = uvicorn.Config(app, ws="none", lifespan="off", log_config=None)
        config.load()

        def connection() -> asyncio.Protocol:
            options = {"config": config, "server_state": ServerState(), "app_state": {}}
            return http_connection(self.guard, self.incidents, 10**6, self.context, **options)

        watching = asyncio.create_task(self.guard.watch())
        async with await self.loop.create_server(connection, sock=self.listener):
            self.is_up.set()
            await self.ending.wait()
        watching.cancel()

    def stop(self) -> None:
        self.loop.call_soon_threadsafe(self.ending.set)
        self.thread.join(20)


@pytest.fixture(scope="module", params=["plain", "encrypted"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    certificate, key = make_certificate(tmp_path_factory.mktemp("certificate"), "one")
    context = None
    if request.param == "encrypted":
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate, key)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(connections, "SWEEP_SECONDS", 0.02)
        patch.setattr(http_protocol, "TAKING_SECONDS", 0.2)
        running = Served(context, certificate)
        yield running
        running.stop()


class Client:
    """A connection whose ends are closed one by one, which Python's encrypted sockets cannot."""

    def __init__(self, server: Served, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> None:
        self.socket = socket.socket()
        self.socket.settimeout(20)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 20_000)
        self.socket.connect(server.listener.getsockname())
        self.tls: ssl.SSLObject | None = None
        if server.context is not None:
            self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            context = ssl.create_default_context(cafile=server.certificate)
            context.maximum_version = version
            self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname="localhost")
            self._shake_hands(self.tls)

    def _shake_hands(self, tls: ssl.SSLObject) -> None:
        with contextlib.suppress(ssl.SSLWantReadError):
            return tls.do_handshake()
        self.socket.sendall(self.outgoing.read())
        self.incoming.write(self.socket.recv(65536))
        return self._shake_hands(tls)

    def say(self, data: bytes, *, notifies: bool = False, shuts: bool = False) -> None:
        """Send ``data``, and with it, as far as it is small, that it was all: by TLS, by TCP."""
        if self.tls is not None:
            self.tls.write(data)
            if notifies:
                with contextlib.suppress(ssl.SSLWantReadError):
                    self.tls.unwrap()
            data = self.outgoing.read()
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
        self.socket.sendall(data)
        if shuts:
            self.socket.shutdown(socket.SHUT_WR)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 0)

    def hear(self, *, pause: float = 0, piece: int = 65536) -> bytes:
        """Return all that comes until the server ends, a ``piece`` at a time, with a ``pause`` before each."""
        heard = []
        while True:
            time.sleep(pause)
            data = self.socket.recv(piece)
            if not data:
                return b"".join(heard)
            heard.append(data if self.tls is None else self._decrypted(self.tls, data))

    def _decrypted(self, tls: ssl.SSLObject, data: bytes) -> bytes:
        self.incoming.write(data)
        parts = []
        with contextlib.suppress(ssl.SSLWantReadError, ssl.SSLZeroReturnError):
            while part := tls.read(65536):
                parts.append(part)
        return b"".join(parts)

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()


def get(path: str, *fields: str) -> bytes:
    return "\r\n".join([f"GET {path} HTTP/1.1", "Host: a", *fields, "", ""]).encode()


def body(answer: bytes) -> bytes:
    assert answer.startswith(b"HTTP/1.1 200 ")
    return answer.partition(b"\r\n\r\n")[2]


def lines(caplog: pytest.LogCaptureFixture, client: Client, event: str) -> list[dict[str, Any]]:
    """Return what the log says of a client."""
    host, port = client.socket.getsockname()
    found = [getattr(record, FIELDS) for record in caplog.records if record.getMessage() == event]
    return [fields for fields in found if fields["address"] == f"{host}:{port}"]


def test_who_reads_slowly_gets_all_of_the_last_answer(server: Served) -> None:
    with Client(server) as client:
        client.say(get("/large", "Connection: close"))
        assert body(client.hear(pause=0.03, piece=9000)) == b"x" * LARGE


def test_what_a_client_sends_behind_its_last_request_destroys_no_answer(server: Served) -> None:
    with Client(server) as client:
        client.say(get("/large", "Connection: close"))
        for _ in range(3):
            time.sleep(0.05)
            client.say(get("/"))
        assert body(client.hear()) == b"x" * LARGE


def test_who_takes_nothing_is_not_waited_for(server: Served, caplog: pytest.LogCaptureFixture) -> None:
    with Client(server) as client:
        client.say(get("/large", "Connection: close"))
        time.sleep(1)
        assert len(client.hear()) < LARGE
        (line,) = lines(caplog, client, "cut")
    assert line["reason"] == "the client took nothing of its answer for 0.2 s"


def test_who_never_ends_is_not_waited_for(server: Served) -> None:
    with Client(server) as client:
        client.say(get("/", "Connection: close"))
        assert body(client.hear()) == b"answered"
        for _ in range(100):
            if not len(server.guard):
                return
            time.sleep(0.1)
        raise AssertionError("the connection is still kept")


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize(("notifies", "shuts"), [(True, True), (True, False), (False, True)])
def test_who_says_at_once_that_it_sends_no_more_is_answered(
    server: Served, notifies: bool, shuts: bool, version: ssl.TLSVersion
) -> None:
    with Client(server, version) as client:
        client.say(get("/") + get("/late") + get("/large"), notifies=notifies, shuts=shuts or client.tls is None)
        heard = client.hear()
    assert heard.count(b"HTTP/1.1 200 ") == 3
    assert body(heard).endswith(b"x" * LARGE)


@pytest.mark.parametrize("begun", [get("/")[:-2], b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nx"])
def test_who_ends_in_the_middle_of_a_request_is_told(server: Served, begun: bytes) -> None:
    for before in ("/", "/late"):
        with Client(server) as client:
            client.say(get(before) + begun, notifies=True, shuts=True)
            first, second = client.hear().split(b"HTTP/1.1 ")[1:]
        assert first.endswith(b"answered")
        assert second.startswith(b"400 ")
        assert b"broke off before the request was complete" in second


def test_a_fault_in_a_body_is_told_behind_the_answers_before_it(
    server: Served, caplog: pytest.LogCaptureFixture
) -> None:
    chunked = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    with Client(server) as client:
        client.say(get("/late") + chunked + b"no size\r\n")
        first, second = client.hear().split(b"HTTP/1.1 ")[1:]
        (line,) = lines(caplog, client, "refused")
    assert first.endswith(b"answered")
    assert second.startswith(b"400 ")
    assert (line["status"], "not valid HTTP" in line["reason"]) == (400, True)


def test_who_finds_no_place_is_told_once_it_has_sent_its_request(server: Served) -> None:
    if server.context is not None:
        pytest.skip("the answer would come before the handshake")
    with contextlib.ExitStack() as stack:
        busy = [stack.enter_context(Client(server)) for _ in range(CONNECTIONS)]
        for each in busy:
            each.say(get("/late", "Connection: close"))
        time.sleep(0.1)
        client = stack.enter_context(Client(server))
        for _ in range(2):
            time.sleep(0.05)
            client.say(get("/"))
        assert b"too many connections are open" in client.hear()
        assert [body(each.hear()) for each in busy] == [b"answered"] * CONNECTIONS
