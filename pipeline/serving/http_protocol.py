"""uvicorn's HTTP within bounds: of connections, of what comes before anything is complete, of what is sent ahead."""

import asyncio
import fcntl
import json
import ssl
import struct
import termios
from http import HTTPStatus
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from pipeline.serving.connections import ConnectionGuard
from pipeline.serving.encryption import Encryption
from pipeline.serving.logs import Incidents
from pipeline.serving.sockets import address_text

INTERIM = b"HTTP/1.1 1"
"""How an interim answer begins (100 Continue), which no body follows."""
HEAD_BYTES = 2**14
"""Of a head; also of what stands between two pieces of a body, and behind it (chunk extensions, trailers)."""
HEAD_SECONDS = 10.0
"""From the first byte of a head to its last; also from a connection's start to the end of its first head."""
PIPELINED = 4
"""Requests that may lie behind the one that is being answered."""
LINGER_SECONDS = 10.0
"""For which what a client goes on sending is read and dropped, so that it comes to read its answer."""
LINGER_PAUSE = 0.01
"""Seconds between two pieces of it."""
TAKING_SECONDS = 10.0
"""For which a client may take nothing of an answer."""
EXPECTING_SECONDS = 1.0
"""For which a refused client that has asked whether it may send its body may still send it."""
NEVER = float("inf")
TOO_LONG = 431, f"the head of the request, or what is between the pieces of its body, has more than {HEAD_BYTES} bytes"


def http_connection(
    guard: ConnectionGuard, incidents: Incidents, linger_bytes: int, tls: ssl.SSLContext | None, **options: Any
) -> asyncio.Protocol:
    """Return what a new connection speaks; ``tls`` is how it is encrypted, None: not at all."""
    http = GuardedProtocol(guard, incidents, linger_bytes, **options)
    return http if tls is None else Encryption(tls, http)


class JoiningTransport:
    """A transport that holds back the head of an answer until its body is written, or, as for HEAD, there is none.

    uvicorn writes the two apart, which wakes the client twice.
    """

    def __init__(self, transport: asyncio.Transport, protocol: "GuardedProtocol") -> None:
        self._transport = transport
        self._protocol = protocol
        self._head = b""
        self._is_ending = False
        self.has_continued = False
        """Whether the client was told to send the body of its newest request."""

    def write(self, data: bytes) -> None:
        """Write ``data``, or keep it if it is a head."""
        if self._is_ending:
            return
        if not self._head and data.endswith(b"\r\n\r\n") and data.startswith(b"HTTP/") and not data.startswith(INTERIM):
            self._head = data
            asyncio.get_running_loop().call_soon(self._flush)  # a body would have followed at once
        else:
            self.has_continued = data.startswith(INTERIM)
            head, self._head = self._head, b""
            self._transport.write(head + data if head else data)

    def is_closing(self) -> bool:
        """Return whether the last answer is written."""
        return self._is_ending or self._transport.is_closing()

    def close(self) -> None:
        """Write what is held back as the last, and let the protocol close once its client has it."""
        if not self._is_ending:
            self._end()
            self._protocol.close_gently()

    def close_now(self) -> None:
        """Write what is held back as the last, and close."""
        self._end()
        self._transport.close()

    def num_untaken(self) -> int:
        """Return how many bytes wait to be sent, or were sent and the client's system has not said that it has them."""
        held = fcntl.ioctl(self._transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, bytes(4))
        return self._transport.get_write_buffer_size() + int(struct.unpack("i", held)[0])

    def _end(self) -> None:
        self._flush()
        self._is_ending = True
        self._protocol.ends()

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
        incidents: where what is refused before it is a request is logged, and an answer that is not taken.
        linger_bytes: of what a client goes on sending that are read and dropped.
    """

    transport: JoiningTransport  # type: ignore[assignment]

    def __init__(self, guard: ConnectionGuard, incidents: Incidents, linger_bytes: int, **options: Any) -> None:
        super().__init__(**options)
        self.guard = guard
        self.incidents = incidents
        self.deadline = NEVER
        self._idle_bytes = 0  # that came since a head or a piece of a body was complete
        self._head_size = 0
        self._in_head = self._in_message = False
        self._num_unanswered = 0  # requests whose head is complete
        self._fault: tuple[int, str] | None = None  # why a callback ended the parser
        self._deaf = False  # nothing more is parsed; what still comes is read and dropped
        self._lingering = False  # an answer is out before its request is in
        self._may_drop = linger_bytes
        self._last_words = b""  # written once all earlier requests are answered
        self._untaken = 0  # bytes, when it was last looked whether the client takes its answer
        self._has_partner = True  # who may still send, and is waited for to end what it sends

    # What the event loop calls

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a new connection, or say that there is no place for it."""
        has_place = self.guard.enter(self)
        super().connection_made(JoiningTransport(transport, self))  # type: ignore[arg-type]
        if has_place:
            self.guard.waits(self, self.loop.time() + HEAD_SECONDS)
        else:
            self._refuse(503, "too many connections are open; try again later")

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self.guard.leave(self)
        self._has_partner = False
        super().connection_lost(exc)

    def eof_received(self) -> bool:  # type: ignore[override]
        """Answer what is there of a client that sends no more; return whether there is something to answer."""
        self._has_partner = False
        if not self._deaf and self._in_message:
            self._refuse(400, "the connection broke off before the request was complete")
        elif not self._deaf:
            self._hear_no_more()
        return self._num_unanswered > 0 and not self.transport.is_closing()

    def data_received(self, data: bytes) -> None:
        """Parse what came, unless nothing is listened to any more."""
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
        deadline = self.loop.time() + HEAD_SECONDS
        if not (self._in_message or self._idle_bytes or self._num_unanswered) and self.deadline > deadline:
            self.guard.waits(self, deadline)  # the first bytes of a head
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
        self.deadline = self.loop.time() + TAKING_SECONDS

    def resume_writing(self) -> None:
        """Go on."""
        super().resume_writing()
        if not self.transport.is_closing():
            self.deadline, self._untaken = NEVER, 0

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
        self._num_unanswered += 1
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
            self.guard.waits(self, self.loop.time() + self.timeout_keep_alive)

    # How a connection ends

    @property
    def is_sending(self) -> bool:
        """Whether a request has begun whose body is still to come."""
        return self.cycle is not None and self.cycle.more_body

    def on_response_complete(self) -> None:
        """Begin the next answer, or wait for the next request, or for the rest of this one."""
        self._num_unanswered -= 1
        super().on_response_complete()
        if self.transport.is_closing() or self._num_unanswered:
            return
        now = self.loop.time()
        if self._last_words:
            self._say(self._last_words)
        elif self.cycle.more_body:
            self._lingering = True
            asked = self.expect_100_continue and not self.transport.has_continued
            self.guard.waits(self, now + (EXPECTING_SECONDS if asked else LINGER_SECONDS))
        elif self.flow.write_paused:
            self.guard.waits(self, now + TAKING_SECONDS)
        else:
            self.guard.waits(self, now + HEAD_SECONDS if self._idle_bytes else NEVER)

    def close_gently(self) -> None:
        """End what is sent, then wait for the client to do the same, dropping what it sends until then.

        A system that closes while something of the client lies unread, or comes later, tells the client so at once, and
        what the client has not read of its answer by then is lost.
        """
        if not self._has_partner:
            self.transport.close_now()
        else:
            self._deaf = True
            self.flow.resume_reading()
            self.transport.write_eof()

    def ends(self) -> None:
        """Note that nothing more is sent than is written."""
        self.guard.waits(self, self.loop.time() + TAKING_SECONDS)

    def shutdown(self) -> None:
        """Close at the server's end what has no request, and wait for no client any more but to take its answer."""
        self._has_partner = False
        super().shutdown()
        if self.transport.is_closing():
            self.transport.close_now()

    def overdue(self) -> None:
        """End a connection whose client has not done its part in time."""
        if self.transport.is_closing() or self.flow.write_paused:
            self._end_unless_it_takes()
        elif self._idle_bytes and not self._lingering:
            self._refuse(408, f"the head of the request was not complete within {HEAD_SECONDS:g} s")
        else:
            self.transport.close_now()

    def _end_unless_it_takes(self) -> None:
        untaken = self.transport.num_untaken()
        if untaken == self._untaken:
            if untaken:
                self._log("cut", reason=f"the client took nothing of its answer for {TAKING_SECONDS:g} s")
            self.transport.abort()
        self._untaken = untaken
        self.deadline = self.loop.time() + TAKING_SECONDS

    def give_way(self) -> None:
        """Close at once, since another one needs the place."""
        self.transport.abort()

    def _hear_no_more(self) -> None:
        """Answer what has come, and nothing that follows it."""
        self._deaf = True
        if self.cycle is not None:
            self.cycle.keep_alive = False

    def _refuse(self, status: int, reason: str) -> None:
        """Answer so what is coming in, after all that came before it, and hear no more."""
        self._deaf = True
        self._log("refused", status=status, reason=reason)
        words = self._answer(status, reason)
        cycle = self.cycle
        if self._in_message and not self._in_head and cycle.more_body:  # the fault is in a request that has begun
            if cycle.response_started:
                self.transport.close()
                return
            if self.pipeline and self.pipeline[0][0] is cycle:
                self.pipeline.popleft()
                self._num_unanswered -= 1
            else:
                cycle.disconnected = True
                cycle.message_event.set()
                self._say(words)
                return
        if self._num_unanswered:
            self._last_words = words
        else:
            self._say(words)

    def _log(self, event: str, **fields: object) -> None:
        self.incidents.log(event, transport="http", address=address_text(self.client), **fields)

    def _say(self, words: bytes) -> None:
        self.transport.write(words)
        self.transport.close()

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
