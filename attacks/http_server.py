"""Attack the server over HTTP: wrong requests, and bytes that are none, while somebody asks for health."""

import contextlib
import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import NamedTuple

from attacks.campaign import Attack, Outcome
from attacks.malformed import http_case, send_http
from attacks.served import MAX_BYTES, MAX_JSON, Attacked, attacked

READ_SECONDS = 15.0
"""For which an answer is waited for; the server's own limits end before."""


class Raw(NamedTuple):
    """Bytes for a connection."""

    data: list[bytes]
    connections: int = 1
    reads: bool = True
    """Whether the answers are read."""
    statuses: frozenset[int] = frozenset(range(400, 500))
    """Those of the last answer that are right; 0: the connection is closed without one."""


def request(body: bytes, *fields: str, path: str = "/v2/models/fmkt-student/infer") -> bytes:
    """Return a request as it is sent, with the length of its body unless ``fields`` say one."""
    lines = [f"POST {path} HTTP/1.1", "Host: a", *fields]
    if not any(field.lower().startswith(("content-length", "transfer-encoding")) for field in fields):
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def endless_head(rng: Random) -> Raw:
    start = rng.choice(
        [b"GET /", b"GET /v2 HTTP/1.1\r\nX: ", b"GET /v2 HTTP/1.1\r\n", b"", b"POST /v2 HTTP/1.1\r\nCookie"]
    )
    more = rng.choice([b"a" * 1000, b"X: y\r\n" * 200, b"a: " + b"b" * 500 + b"\r\n"])
    return Raw([start, *[more] * 400])


def half_heads(rng: Random) -> Raw:
    whole = request(b"{}")
    return Raw([whole[: rng.randrange(1, len(whole) - 4)]], connections=rng.randint(1, 90), reads=False)


def sent_ahead(rng: Random) -> Raw:
    one = rng.choice(
        [b"GET /v2 HTTP/1.1\r\nHost: a\r\n\r\n", b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n", request(b"{}")]
    )
    return Raw([one * 300] * rng.randint(1, 20), connections=rng.randint(1, 30), reads=False)


def bad_chunks(rng: Random) -> Raw:
    size = rng.choice([b"zz", b"-1", b"f" * 20, b"", b"0x5", b"5 5", b"+5", b"5\r", b"\0"])
    return Raw([request(size + b"\r\nhello\r\n0\r\n\r\n", "Transfer-Encoding: chunked")])


def stretched_chunks(rng: Random) -> Raw:
    head = request(b"", "Transfer-Encoding: chunked")
    kind = rng.randrange(3)
    if kind == 0:
        return Raw([head, b"5;", *[b"a" * 1000] * 100])
    if kind == 1:
        return Raw([head, b"5\r\nhello\r\n0\r\n", *[b"X: y\r\n" * 200] * 100])
    return Raw([head, *[b"fff\r\n" + b"x" * 0xFFF + b"\r\n"] * (MAX_BYTES // 0xFFF + 5)])


def two_lengths(rng: Random) -> Raw:
    body = b'{"a": 1}'
    fields = rng.choice(
        [
            ["Content-Length: 8", "Content-Length: 5"],
            ["Content-Length: 8", "Content-Length: 8"],
            ["Content-Length: 8", "Transfer-Encoding: chunked"],
            ["Transfer-Encoding: chunked", "Content-Length: 8"],
            ["Transfer-Encoding: chunked", "Transfer-Encoding: chunked"],
            ["Transfer-Encoding: chunked, identity"],
            ["Transfer-Encoding: identity"],
            ["Transfer-Encoding: xchunked"],
            ["Transfer-Encoding : chunked"],
            ["Transfer-Encoding: \x0bchunked"],
            ["Content-Length: +8"],
            ["Content-Length: 8, 8"],
            ["Content-Length: 0x8"],
            ["Content-Length: -1"],
            ["Content-Length: 99999999999999999999"],
            ["Content-Length: 8", "X: a\r\n folded"],
            ["Content-Length: 8", "X: a\0b"],
            ["Content-Length: 8", "no colon"],
        ]
    )
    hidden = b"GET /v2/health/live HTTP/1.1\r\nHost: a\r\n\r\n"
    return Raw([request(body, *fields) + hidden])


def slow_body(rng: Random) -> Raw:
    return Raw([request(b"{", f"Content-Length: {rng.randint(100, 9999)}")], connections=rng.randint(1, 12))


def large_body(rng: Random) -> Raw:
    size = rng.randint(MAX_BYTES + 1, 3 * MAX_BYTES)
    fields = rng.choice([[], ["Connection: close"], ["Inference-Header-Content-Length: 2"]])
    return Raw([request(bytes(size), *fields)])


def deep_json(rng: Random) -> Raw:
    depth = rng.choice([40, 1000, 40_000])
    opening, closing = rng.choice([(b"[", b"]"), (b'{"a":', b"}")])
    return Raw([request(b'{"inputs": ' + opening * (depth // len(opening)) + closing * (depth // len(opening)) + b"}")])


def many_parts(rng: Random) -> Raw:
    part = rng.choice(
        [b"[],", b"{},", b'"",', b"1,", b"[1],", b"1e5,", b"null,", b"[0,1,2,3,4,5,6,7,8,9,0,1,2,3,4,5],"]
    )
    return Raw([request(b'{"inputs": [' + part * ((MAX_JSON - 30) // len(part)) + b"1]}")])


def odd_numbers(rng: Random) -> Raw:
    good, size = ["0.5"] * 8000, rng.randrange(8000)
    good[size] = rng.choice(["", "NaN", "1,", "Infinity", "-", "1e", "01", "nul", "[", "]", '"', "1e999", "9" * 400])
    text = ",".join(good)
    return Raw(
        [request(f'{{"inputs": [{{"name": "image", "datatype": "FP32", "shape": [1], "data": [{text}]}}]}}'.encode())]
    )


def gone(rng: Random) -> Raw:
    whole = request(json.dumps({"inputs": []}).encode())
    return Raw([whole[: rng.randrange(len(whole))]], connections=rng.randint(1, 60), reads=False)


def noise(rng: Random) -> Raw:
    start = rng.choice(
        [b"", b"\x16\x03\x01\x00\xa5\x01\x00\x00", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"CONNECT a:1 HTTP/1.1\r\n\r\n"]
    )
    return Raw([start + b"\xff" + rng.randbytes(rng.randint(1, 3000))])


KINDS: dict[str, Callable[[Random], Raw]] = {
    "a head without an end": endless_head,
    "half a head, then silence": half_heads,
    "requests sent ahead, answers unread": sent_ahead,
    "chunks that are none": bad_chunks,
    "chunk extensions, trailers, chunks without an end": stretched_chunks,
    "two lengths, or one that is none": two_lengths,
    "a body that does not come": slow_body,
    "a body that is too large": large_body,
    "JSON in JSON": deep_json,
    "JSON of many parts": many_parts,
    "numbers that are none": odd_numbers,
    "a client that goes": gone,
    "bytes that are no HTTP": noise,
}
MALFORMED = "a wrong request"


@contextlib.contextmanager
def opened() -> Iterator[Attack]:
    """Start a server and yield what attacks it."""
    with attacked() as server:

        def attack(rng: Random, _: Path) -> Outcome:
            kind = rng.choice([*KINDS, MALFORMED, MALFORMED])
            if kind == MALFORMED:
                case = http_case(rng, server.target)
                status = send_http(server.server.http, case)
                return server.judged(
                    f"{kind}: {case.kind}", "" if 400 <= status < 500 else f"status {status}: {case}"[:500]
                )
            with server.observed() as missing:
                fault = send_raw(server, KINDS[kind](rng))
            return server.judged(kind, fault, "; ".join(missing))

        yield attack


def send_raw(server: Attacked, raw: Raw) -> str:
    """Send ``raw``; return what is wrong with the answers, empty if nothing is."""
    with contextlib.ExitStack() as stack:
        connections = [
            stack.enter_context(socket.create_connection(server.place, timeout=READ_SECONDS))
            for _ in range(raw.connections)
        ]
        for connection in connections:
            connection.settimeout(READ_SECONDS if raw.reads else 0.05)
            with contextlib.suppress(OSError):
                for data in raw.data:
                    connection.sendall(data)
        if not raw.reads:
            return ""
        return "; ".join(filter(None, (wrong_answer(connection, raw) for connection in connections)))


def wrong_answer(connection: socket.socket, raw: Raw) -> str:
    """Return what is wrong with the one answer that is expected, empty if nothing is."""
    connection.settimeout(READ_SECONDS)
    answer = b""
    try:
        while part := connection.recv(65536):
            answer += part
            if b"\r\n\r\n" in answer and b'"}' in answer:
                break
    except TimeoutError:
        return f"no answer within {READ_SECONDS:g} s, and no end: {answer[:300]!r}"
    except ConnectionError as error:
        if not answer:
            return f"no answer: {type(error).__name__}"
    words = answer.split(maxsplit=2)
    status = int(words[1]) if len(words) > 1 and words[1].isdigit() else 0
    overloaded = status == 503 and raw.connections > 1
    return "" if status in raw.statuses or overloaded else f"status {status}: {answer[:300]!r}"
