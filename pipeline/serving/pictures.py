"""Image files as clients send them, brought to a network's input as those were that it learned from."""

import base64
import binascii
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.core.errors import UserError
from pipeline.data.decoding import Resize, TooManyPixelsError
from pipeline.data.image_kinds import HEAD, image_format, openable_formats
from pipeline.package.pictures import Picture, decode_picture
from pipeline.runtimes.base import to_input
from pipeline.serving.json_text import Numbers
from pipeline.serving.refusal import Reason, RefusalError, invalid, quoted
from pipeline.serving.tensors import InputTensor
from pipeline.serving.workers import late
from pipeline.tasks.base import Placement

BYTES = "BYTES"
"""The protocol's data type of elements that are bytes of any length."""
LENGTH = 4
"""Bytes before each element in binary data, which are its length, little-endian."""


class Prepared(NamedTuple):
    """Pictures as a network takes them."""

    batch: NDArray[Any]
    """(B, 3, H, W), of the network's type."""
    placements: list[Placement]


@dataclass(frozen=True)
class PictureReader:
    """What turns image files into a network's input."""

    image_size: tuple[int, int]
    """(H, W)"""
    resize: Resize
    dtype: str
    max_megapixels: float

    def prepare(self, files: Sequence[bytes], *, until: float) -> Prepared:
        """Return the pictures in ``files``.

        Args:
            until: a moment of ``time.monotonic`` after which nobody waits for them.

        Raises:
            RefusalError: one of them is no picture, damaged or too large, or it took too long.
        """
        read: list[Picture] = []
        for number, data in enumerate(files, start=1):
            if time.monotonic() >= until:
                raise late()
            read.append(self._read("the picture" if len(files) == 1 else f"picture {number} of {len(files)}", data))
        pixels = np.stack([picture.pixels for picture in read])
        return Prepared(to_input(pixels, self.dtype), [picture.placement for picture in read])

    def _read(self, name: str, data: bytes) -> Picture:
        if image_format(data[:HEAD]) is None:
            starts = f"starts with {quoted(data[:12])}" if data else "is empty"
            known = ", ".join(openable_formats())
            raise invalid(f"{name} {starts}; expected are the bytes of an image file: {known}{_hint(data)}")
        try:
            return decode_picture(name, data, self.image_size, resize=self.resize, max_megapixels=self.max_megapixels)
        except TooManyPixelsError as error:
            raise RefusalError(Reason.TOO_LARGE, str(error)) from error
        except UserError as error:
            raise invalid(f"{error}{_hint(data)}") from error
        except MemoryError as error:
            raise RefusalError(Reason.OVERLOADED, f"{name}: memory ran short; try again later") from error


def _hint(data: bytes) -> str:
    """Return what to add where ``data`` looks like a picture that ``curl -d`` sent: as text, without these bytes."""
    if data.isascii() or any(byte in data for byte in b"\0\r\n"):
        return ""
    return "; it came without line ends and zeros, as curl -d sends a file: take --data-binary"


def read_files(tensor: InputTensor, *, max_batch: int, max_bytes: int) -> list[bytes]:
    """Return the image files that are the elements of ``tensor``, of the data type BYTES.

    Raises:
        RefusalError: its shape, its data or the size of an element is wrong.
    """
    shape, where = tuple(tensor.shape), f"input {tensor.name!r}"
    if len(shape) not in {1, 2} or shape[1:] not in {(), (1,)}:
        raise invalid(f"{where}: shape {quoted(list(shape))}, expected [batch] or [batch, 1] of {BYTES}: image files")
    if not 1 <= shape[0] <= max_batch:
        raise invalid(f"{where}: a batch of {quoted(shape[0])}, expected 1 to {max_batch}")
    data = tensor.data
    if isinstance(data, Numbers):
        raise invalid(f"{where}: holds numbers, expected image files as texts of base64, or binary data")
    elements = _cut(memoryview(data), where) if isinstance(data, (bytes, memoryview)) else _decoded(data, where)
    files = []
    for element in elements:
        if len(element) > max_bytes:
            raise too_many_bytes(max_bytes)
        files.append(bytes(element))
        if len(files) > shape[0]:
            break
    if len(files) != shape[0]:
        found = f"more than {shape[0]}" if len(files) > shape[0] else str(len(files))
        raise invalid(f"{where}: {found} elements, but its shape makes {shape[0]}")
    return files


def _cut(data: memoryview, where: str) -> Iterator[memoryview]:
    """Yield the elements of binary data, each of which follows its length."""
    while data:
        size = int.from_bytes(data[:LENGTH], "little")
        if len(data) < LENGTH + size:
            raise invalid(
                f"{where}: its binary data ends within an element; each is an image file, with its length in {LENGTH} "
                "bytes, little-endian, before it"
            )
        yield data[LENGTH : LENGTH + size]
        data = data[LENGTH + size :]


def _decoded(values: Sequence[Any], where: str) -> Iterator[bytes]:
    """Yield the elements of a list, bytes or base64, which may be nested as the shape [batch, 1] is."""
    for value in values:
        inner = value[0] if isinstance(value, list) and len(value) == 1 else value
        if isinstance(inner, bytes):
            yield inner
            continue
        if not isinstance(inner, str):
            raise invalid(f"{where}: holds {quoted(inner)}, expected image files as texts of base64, or binary data")
        try:
            yield base64.b64decode(inner, validate=True)
        except (binascii.Error, ValueError) as error:
            raise invalid(f"{where}: {quoted(inner)} is no base64, which image files are in JSON ({error})") from error


def too_many_bytes(max_bytes: int) -> RefusalError:
    """Return the refusal of an image file above the limit."""
    return RefusalError(Reason.TOO_LARGE, f"the picture has more than {max_bytes} bytes, which is the limit")
