"""uvicorn's HTTP within bounds: of connections, of what comes before anything is complete, of what is sent ahead."""

import asyncio
import contextlib
import json
import ssl
import types
from collections.abc import Coroutine, Generator
from http import HTTPStatus
from typing import Any, TypeVar

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from pipeline.serving.connections import ConnectionGuard

Result = TypeVar("Result")

INTERIM = b"HTTP/1.1 1"
"""How an interim answer begins (100 Continue), which no body follows."""
HEAD_BYTES = 2**14
"""Of a head; also of what stands between two pieces of a body, and behind it (chunk extensions, trailers)."""
HEAD_SECONDS = 10.0
"""From the first byte of a head to its last; also from a connection's start to the end of its first head."""
PIPELINED = 4
"""Requests that may lie behind the one that is being answered."""
LINGER_SECONDS = 10.0
"""For which a refused body is read on, so that its client comes to read the answer."""
LINGER_PAUSE = 0.01
"""Seconds between two pieces of it."""
CLOSING_SECONDS = 10.0
"""For which a client may take nothing of an answer."""
EXPECTING_SECONDS = 1.0
"""For which a refused client that has asked whether it may send its body may still send it."""
NEVER = float("inf")
TOO_LONG = 431, f"the head of the request, or what is between the pieces of its body, has more than {HEAD_BYTES} bytes"


def begun(coroutine: Coroutine[Any, Any, Result]) -> Coroutine[Any, Any, Result]:
    """Return ``coroutine`` once its first step is taken, which must end in a wait (``eager_start`` of Python 3.12).

    Where that wait fails or is cancelled the coroutine is closed there, so that it tidies up at once.
    """
    awaited = coroutine.send(None)

    @types.coroutine
    def rest() -> Generator[Any, Any, Result]:
        try:
            yield awaited
            result: Result = yield from coroutine
            return result
        finally:
            coroutine.close()

    return rest()


class JoiningTransport:
    """A transport that holds back the head of an answer until its body is written, or, as for HEAD, there is none.

    uvicorn writes the two apart, which wakes the client twice.
    """

    def __init__(self, transport: asyncio.Transport, protocol: "GuardedProtocol") -> None:
        self._transport = transport
        self._protocol = protocol
        self._head = b""
        self.has_continued = False
        """Whether the client was told to send the body of its newest request."""

    def write(self, data: bytes) -> None:
        """Write ``data``, or keep it if it is a head."""
        if not self._head and data.endswith(b"\r\n\r\n") and data.startswith(b"HTTP/") and not data.startswith(INTERIM):
            self._head = data
            asyncio.get_running_loop().call_soon(self._flush)  # a body would have followed at once
        else:
            self.has_continued = data.startswith(INTERIM)
            head, self._head = self._head, b""
            self._transport.write(head + data if head else data)

    def close(self) -> None:
        """Write what is held back, then close, or let the protocol read first what its client is still sending."""
        self._flush()
        self._protocol.close_gently()

    def close_now(self) -> None:
        """Write what is held back, then close."""
        self._flush()
        self._transport.close()
        self._protocol.closes()

    def _flush(self) -> None:
        head, self._head = self._head, b""
        if head:
            self._transport.write(head)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class GuardedProtocol(HttpToolsProtocol):
    """uvicorn's HTTP, one connection of a guard.

    Args:
        guard: what bounds all connections.
        linger_bytes: of a refused body that are read on.
        tls: how the connection is encrypted; None: not at all.
    """

    transport: JoiningTransport  # type: ignore[assignment]

    def __init__(self, guard: ConnectionGuard, linger_bytes: int, tls: ssl.SSLContext | None, **options: Any) -> None:
        super().__init__(**options)
        self.guard = guard
        self.deadline = NEVER
        self._tls = tls
        self._raw: asyncio.Transport | None = None
        self._early = b""  # what came before the encrypted transport was handed over
        self._idle_bytes = 0  # that came since a head or a piece of a body was complete
        self._head_size = 0
        self._in_head = self._in_message = False
        self._fault: tuple[int, str] | None = None  # why a callback ended the parser
        self._deaf = False  # nothing more is parsed; what still comes is read and dropped
        self._lingering = False  # an answer is out before its request is in
        self._may_drop = linger_bytes
        self._last_words = b""  # written once all earlier requests are answered
        self._unsent = 0  # bytes, when it was last found that the client takes nothing

    # What the event loop calls

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a new connection, if there is a place for it."""
        self._raw = transport
        if not self.guard.enter(self):
            if self._tls is None:
                transport.write(self._answer(503, "too many connections are open; try again later"))
            transport.close()
            return
        self.guard.waits(self, self.loop.time() + HEAD_SECONDS)
        if self._tls is None:
            self._begin(transport)
        else:
            handshake = self.loop.start_tls(
                transport, self, self._tls, server_side=True, ssl_handshake_timeout=HEAD_SECONDS
            )
            # The first step takes this protocol's place at the transport; begun later, it would miss what comes now.
            self.loop.create_task(self._encrypt(transport, begun(handshake)))

    async def _encrypt(
        self, transport: asyncio.Transport, handshake: Coroutine[Any, Any, asyncio.Transport | None]
    ) -> None:
        encrypted = None
        with contextlib.suppress(OSError):  # of a client that speaks no TLS, or goes away; ssl.SSLError is one
            encrypted = await handshake
        if encrypted is None or transport.is_closing():  # one that was ended meanwhile is handed over as if it stood
            self.guard.leave(self)
            transport.abort()
            return
        self._begin(encrypted)
        early, self._early = self._early, b""
        if early:
            self.data_received(early)

    def _begin(self, transport: asyncio.Transport) -> None:
        super().connection_made(JoiningTransport(transport, self))  # type: ignore[arg-type]

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self.guard.leave(self)
        if self.transport is not None:
            super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what came, unless nothing is listened to any more."""
        if self.transport is None:
            self._early += data
            return
        if self._lingering or self._deaf:
            self._dropped(len(data))
        if not self._deaf:
            self._parse(data)

    def _dropped(self, size: int) -> None:
        """Read on slowly, and not for ever, so that this costs others little."""
        self._may_drop -= size
        if self._may_drop < 0:
            self.transport.close_now()
        else:
            self.flow.pause_reading()
            self.loop.call_later(LINGER_PAUSE, self.flow.resume_reading)

    def _parse(self, data: bytes) -> None:
        if not self._in_message and not self._idle_bytes and self.deadline == NEVER and not self._is_answering:
            self.guard.waits(self, self.loop.time() + HEAD_SECONDS)  # the first bytes of a head
        self._idle_bytes += len(data)
        self._unset_keepalive_if_required()
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._hear_no_more()  # what follows would be another protocol, which is not spoken here
        except httptools.HttpParserError as error:
            if self._fault is None and isinstance(error, httptools.HttpParserCallbackError):
                self._fault = 400, "not valid HTTP: the path is none"
            self._refuse(*self._fault or (400, f"not valid HTTP: {error}"))
        else:
            if self._idle_bytes > HEAD_BYTES:
                self._refuse(*TOO_LONG)

    def pause_writing(self) -> None:
        """Wait for a client that reads its answers more slowly than they come."""
        super().pause_writing()
        self.deadline = self.loop.time() + CLOSING_SECONDS

    def resume_writing(self) -> None:
        """Go on."""
        super().resume_writing()
        self.deadline, self._unsent = NEVER, 0

    # What the parser calls

    def on_message_begin(self) -> None:
        """Begin a request."""
        self._in_head = self._in_message = True
        self._head_size = 0
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """Take a piece of the path."""
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a field of the head; those that follow a body are no part of the request."""
        self._count(len(name) + len(value) + len(b": \r\n"))
        if self._in_head:
            super().on_header(name, value)

    def _count(self, size: int) -> None:
        self._head_size += size
        if self._head_size > HEAD_BYTES:
            self._fault = TOO_LONG
            raise ValueError(TOO_LONG)

    def on_headers_complete(self) -> None:
        """Begin to answer, or keep the request until those before it are answered."""
        if len(self.pipeline) >= PIPELINED:
            self._fault = 429, f"more than {PIPELINED} requests wait on this connection, which is the limit"
            raise ValueError(self._fault)
        super().on_headers_complete()
        self._in_head = False
        self._idle_bytes = 0
        self.guard.works(self)

    def on_body(self, body: bytes) -> None:
        """Take a piece of a body."""
        self._idle_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """End a request."""
        self._in_message = False
        self._idle_bytes = 0
        super().on_message_complete()
        if self._lingering:
            self._lingering = False
            self.cycle.more_body = False
            if self.cycle.keep_alive:
                self.guard.waits(self, NEVER)
            else:
                self.transport.close_now()

    # How a connection ends

    @property
    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    @property
    def is_sending(self) -> bool:
        """Whether a request has begun whose body is still to come."""
        return self.cycle is not None and self.cycle.more_body

    def on_response_complete(self) -> None:
        """Begin the next answer, or wait for the next request, or for the rest of this one."""
        super().on_response_complete()
        if self.transport.is_closing() or self._is_answering:
            return
        now = self.loop.time()
        if self._last_words:
            self.transport.write(self._last_words)
            self.close_gently()
        elif self.cycle.more_body:
            self._lingering = True
            asked = self.expect_100_continue and not self.transport.has_continued
            self.guard.waits(self, now + (EXPECTING_SECONDS if asked else LINGER_SECONDS))
        elif self.flow.write_paused:
            self.guard.waits(self, now + CLOSING_SECONDS)
        else:
            self.guard.waits(self, now + HEAD_SECONDS if self._idle_bytes else NEVER)

    def close_gently(self) -> None:
        """Close, once the client has sent what it is sending, or too much of it, or for too long."""
        if not self._deaf and not (self.cycle is not None and self.cycle.more_body):
            self.transport.close_now()
            return
        self._lingering = True
        self.flow.resume_reading()
        if self._deaf and self.transport.can_write_eof():
            self.transport.write_eof()
        self.guard.waits(self, self.loop.time() + LINGER_SECONDS)

    def closes(self) -> None:
        """Note that the connection is being closed."""
        self.guard.waits(self, self.loop.time() + CLOSING_SECONDS)

    def shutdown(self) -> None:
        """Close at the server's end what has no request; an encrypted client that does not answer is not waited for."""
        super().shutdown()
        if self.transport.is_closing():
            self.deadline = self.loop.time()

    def overdue(self) -> None:
        """End a connection whose client has not done its part in time."""
        if self.transport is None:
            self.give_way()
        elif self.transport.is_closing() or self.flow.write_paused:
            self._end_unless_it_sends()
        elif self._idle_bytes and not self._lingering:
            self._refuse(408, f"the head of the request was not complete within {HEAD_SECONDS:g} s")
        else:
            self.transport.close_now()

    def _end_unless_it_sends(self) -> None:
        unsent = self.transport.get_write_buffer_size()
        if unsent and (unsent < self._unsent or not self._unsent):
            self._unsent = unsent
            self.deadline = self.loop.time() + CLOSING_SECONDS
        else:
            self.transport.abort()

    def give_way(self) -> None:
        """Close at once, since another one needs the place."""
        assert self._raw is not None
        self._raw.abort()

    def _hear_no_more(self) -> None:
        """Answer what has come, and nothing that follows it."""
        self._deaf = True
        if self.cycle is not None:
            self.cycle.keep_alive = False

    def _refuse(self, status: int, reason: str) -> None:
        """Answer so what is coming in, after all that came before it, and hear no more."""
        self._deaf = True
        words = self._answer(status, reason)
        cycle = self.cycle
        if self._in_message and not self._in_head and cycle.more_body:  # the fault is in a request that has begun
            if cycle.response_started:
                self.transport.close_now()
                return
            if self.pipeline and self.pipeline[0][0] is cycle:
                self.pipeline.popleft()
            else:
                cycle.disconnected = True
                cycle.message_event.set()
                self._say(words)
                return
        if self._is_answering:
            self._last_words = words
        else:
            self._say(words)

    def _say(self, words: bytes) -> None:
        self.transport.write(words)
        self.close_gently()

    def _answer(self, status: int, reason: str) -> bytes:
        body = json.dumps({"error": reason}).encode()
        fields = [
            *self.server_state.default_headers,
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),
        ]
        head = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n".encode()
        return head + b"".join(name + b": " + value + b"\r\n" for name, value in fields) + b"\r\n" + body
