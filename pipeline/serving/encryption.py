"""TLS of a connection, in which a client may end what it sends and still be answered."""

import asyncio
import contextlib
import ssl
from typing import Any

PIECE = 2**16
"""Bytes that are decrypted at a time."""


class Encryption(asyncio.Protocol, asyncio.Transport):
    """The server's end of TLS: a protocol to the socket's transport, a transport to ``inner``.

    That of asyncio, and of uvloop, closes once its client says that it sends no more, and drops what is still written.
    OpenSSL itself goes on writing, as TLS 1.3 asks for (RFC 8446, section 6.1), and so does this. What is written
    before the handshake is complete is dropped: nobody could read it.
    """

    def __init__(self, context: ssl.SSLContext, inner: asyncio.Protocol) -> None:
        super().__init__()
        self._context = context
        self._inner = inner
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._is_established = self._has_ended = False

    # What the event loop calls

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a new connection; its handshake is the first that comes."""
        self._raw = transport
        self._inner.connection_made(self)

    def data_received(self, data: bytes) -> None:
        """Pass on what came, decrypted, and the end where the client has said it."""
        self._incoming.write(data)
        parts, is_last = [], True
        try:
            if not self._is_established:
                self._tls.do_handshake()
                self._is_established = True
            while part := self._tls.read(PIECE):
                parts.append(part)
        except ssl.SSLWantReadError:
            is_last = False
        except ssl.SSLZeroReturnError:  # as empty as a last part, after this side has said the same
            pass
        except ssl.SSLError:  # no TLS, or damaged
            self._send()  # the alert that says so
            self._has_ended = True
            self._raw.close()
            return
        self._send()
        if parts:
            self._inner.data_received(b"".join(parts))
        if is_last and not self._inner.eof_received():
            self.close()

    def eof_received(self) -> bool:
        """Take the end of the socket for the client's, whether or not it has said so; return whether to go on."""
        return self._is_established and bool(self._inner.eof_received())

    def pause_writing(self) -> None:
        """Pass it on."""
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        """Pass it on."""
        self._inner.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """Pass it on."""
        self._has_ended = True
        self._inner.connection_lost(exc)

    # What the inner protocol calls

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send ``data`` encrypted."""
        rest = memoryview(data)
        while rest and self._is_established and not self._has_ended:
            rest = rest[self._tls.write(rest) :]
        self._send()

    def write_eof(self) -> None:
        """Say that nothing more is sent; what the client sends is still read."""
        self._end()
        self._raw.write_eof()

    def close(self) -> None:
        """Send what is written, say that it was all, and close."""
        self._end()
        self._raw.close()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return what is known of the connection."""
        return self._context if name == "sslcontext" else self._raw.get_extra_info(name, default)

    def is_closing(self) -> bool:
        """Return whether the connection is being closed."""
        return self._raw.is_closing()

    def get_write_buffer_size(self) -> int:
        """Return how many bytes wait to be sent."""
        return self._raw.get_write_buffer_size()

    def pause_reading(self) -> None:
        """Let what comes wait."""
        self._raw.pause_reading()

    def resume_reading(self) -> None:
        """Go on."""
        self._raw.resume_reading()

    def abort(self) -> None:
        """Close at once."""
        self._raw.abort()

    def _end(self) -> None:
        with contextlib.suppress(ssl.SSLError):  # it is said; the client's own is not waited for
            self._tls.unwrap()
        self._send()
        self._has_ended = True

    def _send(self) -> None:
        data = self._outgoing.read()
        if data and not self._has_ended:
            self._raw.write(data)
