"""What the header of a JPEG file says that decides how it is decoded."""

from typing import NamedTuple

SOS = 0xDA
APP1 = 0xE1
FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""Markers that a frame begins with (ITU-T T.81, table B.1)."""
SEQUENTIAL = frozenset({0xC0, 0xC1})
"""Those of frames whose rows follow each other, Huffman-coded."""
MARGIN = 32
"""Rows that are decoded below the last one that is needed, which is interpolated from them."""


class JpegHeader(NamedTuple):
    """Facts about a JPEG file."""

    width: int
    height: int
    components: int
    """1: grey; 3: colour; 4: of printing."""
    frame: int
    """Marker that the frame begins with."""
    height_at: int
    """Where in the file the height stands, 2 bytes."""
    has_exif: bool
    """Whether a camera may say how it was held."""


def read_jpeg_header(data: bytes) -> JpegHeader | None:
    """Return what the header of ``data`` says; None where it is not that of a JPEG file, or a part is missing."""
    at, has_exif, frame = 2, False, None
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        if marker == SOS:
            return None if frame is None else frame._replace(has_exif=has_exif)
        if marker == APP1 and data[at + 4 : at + 8] == b"Exif":
            has_exif = True
        if marker in FRAMES and at + 10 <= len(data):
            height, width = (int.from_bytes(data[start : start + 2], "big") for start in (at + 5, at + 7))
            frame = JpegHeader(width, height, data[at + 9], marker, at + 5, has_exif) if width and height else None
        at += 2 + length
    return None


def first_rows(data: bytes, header: JpegHeader, count: int) -> tuple[bytes | bytearray, int]:
    """Return the JPEG file ``data`` as one that ends soon after its first ``count`` rows, and the rows that it has.

    A decoder stops there and leaves the rest. Of a frame in several passes the file stays whole.
    """
    rows = count + MARGIN
    if rows >= header.height or header.frame not in SEQUENTIAL:
        return data, header.height
    cut = bytearray(data)
    cut[header.height_at : header.height_at + 2] = rows.to_bytes(2, "big")
    return cut, rows
