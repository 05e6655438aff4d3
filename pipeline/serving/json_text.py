"""JSON of strangers: read within bounds of depth and number, and in pieces that let other threads go on."""

import json
import math
import re
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, NoReturn

import numpy as np
from numpy.typing import NDArray

MAX_DEPTH = 32
"""Of lists and objects in each other; a request of the protocol needs ten."""
MAX_PARTS = 2**16
"""Lists, objects and texts of a document: each takes far more memory than text, and a request needs few."""
BRIEF = 2**16
"""Bytes that are parsed within a millisecond or two."""
PIECE = 2**14
"""Bytes of numbers that are parsed at a time: Python's parser lets no other thread run meanwhile."""

PAUSE = 0.0005
"""Seconds between two pieces, in which nothing asks for Python's lock."""
SHORT = 16
"""Elements below which a list stays one, such as a shape."""

Text = bytes | bytearray
_TOKEN = re.compile(rb'[ \t\r\n]+|[^"\[\]{}]+|"[^"\\]*(?:\\.[^"\\]*)*"|[\[\]{}]', re.DOTALL)
_SPACE = b" \t\r\n"
_OPENING, _CLOSING, _OTHERS = b"[{", b"]}", b'{}"'


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)


class Numbers(NamedTuple):
    """A list of JSON that holds neither texts nor lists nor objects, as an array."""

    kinds: frozenset[type]
    """Python's types of its elements."""
    values: NDArray[Any]
    """Empty where the elements are no numbers."""


def read_document(content: Text) -> Any:
    """Return what JSON says; NaN and infinity, which Python would take, are no JSON.

    In a long text, lists of ``SHORT`` numbers and more become `Numbers`.

    Raises:
        ValueError: it is none, or beyond the bounds.
    """
    num_open = content.count(b"[") + content.count(b"{")
    if num_open + content.count(b'"') // 2 > MAX_PARTS:
        raise ValueError(f"more than {MAX_PARTS} lists, objects and texts")
    if num_open > MAX_DEPTH:
        _require_shallow(content)
    if len(content) <= BRIEF:
        return _loads(content, _refuse_constant)
    return _read_in_pieces(content)


def _loads(text: Text, parse_constant: Callable[[str], Any]) -> Any:
    try:
        return json.loads(text, parse_constant=parse_constant)
    except RecursionError as error:
        raise ValueError(str(error)) from error


def _require_shallow(text: Text) -> None:
    depth = 0
    for token in _TOKEN.finditer(text):
        first = text[token.start()]
        if first in _OPENING:
            depth += 1
            if depth > MAX_DEPTH:
                raise ValueError(f"lists and objects lie in each other more than {MAX_DEPTH} deep")
        elif first in _CLOSING:
            depth -= 1


def _read_in_pieces(text: Text) -> Any:
    """Parse ``text`` without its lists of numbers, then put these, parsed on their own, where they were.

    In the text that is left, NaN stands for each: it is no JSON, so that no other can be there.
    """
    frame, end, paused = bytearray(), 0, 0
    found: list[Numbers | list[Any]] = []
    for start, stop in _lists(text):
        frame += text[end:start] + b"NaN"
        found.append(_read_numbers(text, start + 1, stop - 1))
        end = stop
        if end > paused + PIECE:
            time.sleep(PAUSE)
            paused = end
    frame += text[end:]
    left = iter(found)

    def next_list(name: str) -> Numbers | list[Any]:
        numbers = next(left, None)
        if name != "NaN" or numbers is None:
            _refuse_constant(name)
        return numbers

    return _loads(frame, next_list)


def _lists(text: Text) -> Iterator[tuple[int, int]]:
    """Yield where lists that hold neither texts nor lists nor objects begin and end."""
    opened, holds_more = -1, False
    for token in _TOKEN.finditer(text):
        first = text[token.start()]
        if first == ord("["):
            opened, holds_more = token.start(), False
        elif first == ord("]"):
            if opened >= 0 and holds_more:
                yield opened, token.end()
            opened = -1
        elif first in _OTHERS:
            opened = -1
        elif first not in _SPACE:
            holds_more = True


def _read_numbers(text: Text, start: int, stop: int) -> Numbers | list[Any]:
    kinds: set[type] = set()
    arrays: list[NDArray[Any]] = []
    while start <= stop:
        end = text.find(b",", start + PIECE, stop)
        end = stop if end < 0 else end
        piece = _DECODER.decode("[" + text[start:end].decode() + "]")
        if not piece:
            raise ValueError("a value is missing beside a comma")
        if end == stop and not arrays and len(piece) < SHORT:
            return list(piece)
        new = set(map(type, piece))
        kinds |= new
        arrays.append(_array(piece, new))
        start = end + 1
        if start <= stop:
            time.sleep(PAUSE)
    return Numbers(frozenset(kinds), np.concatenate(arrays))


def _array(values: list[Any], kinds: set[type]) -> NDArray[Any]:
    if not kinds <= {int, float}:
        return np.empty(0)
    try:
        return np.array(values, np.int64 if kinds == {int} else np.float64)
    except OverflowError:
        return np.array([float(value) if abs(value) < 2**1023 else math.inf for value in values])
