"""Answers that leave in one piece: uvicorn writes head and body apart, which wakes the client twice."""

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

INTERIM = b"HTTP/1.1 1"
"""How an interim answer begins (100 Continue), which no body follows."""


class JoiningTransport:
    """A transport that holds back the head of an answer until its body is written, or, as for HEAD, there is none."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._head = b""

    def write(self, data: bytes) -> None:
        """Write ``data``, or keep it if it is a head."""
        if not self._head and data.endswith(b"\r\n\r\n") and data.startswith(b"HTTP/") and not data.startswith(INTERIM):
            self._head = data
            asyncio.get_running_loop().call_soon(self._flush)  # a body would have followed at once
        else:
            head, self._head = self._head, b""
            self._transport.write(head + data if head else data)

    def close(self) -> None:
        """Write what is held back, then close."""
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        head, self._head = self._head, b""
        if head:
            self._transport.write(head)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class JoiningProtocol(HttpToolsProtocol):
    """uvicorn's HTTP with answers in one piece."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a new connection."""
        super().connection_made(JoiningTransport(transport))  # type: ignore[arg-type]
