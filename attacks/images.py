"""Damaged image files: each is read, or refused in one line that names it, in bounded memory and by this process alone.

Each case is a valid file of some format and mode, damaged in one of the ways of ``DAMAGES``, then read as prepare_data,
training and ``fmkt predict`` do: its central square, the whole on a canvas, a random part.
"""

import contextlib
import io
import os
import random
import struct
import tempfile
import traceback
import zlib
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from attacks import damage
from attacks.campaign import Attack, Outcome
from attacks.damage import Damage, flip_bits, overwrite, place
from attacks.memory import peak_from_here
from pipeline.core.errors import UserError
from pipeline.data.decoding import MAX_MEGAPIXELS, decode_image
from pipeline.data.image_bytes import read_image_bytes
from pipeline.data.random_crops import random_crop

LARGEST = 1000
"""MiB by which the process may grow: 80 megapixels in four colours, and what converting them takes."""
SIZE = 32
RARELY = 0.03
ROTATED = b"Exif\0\0II*\0\x08\0\0\0\1\0\x12\1\3\0\1\0\0\0\6\0\0\0\0\0\0\0"
SOURCES: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("JPEG", "RGB", {}), ("JPEG", "L", {}), ("JPEG", "CMYK", {}), ("JPEG", "RGB", {"progressive": True}),
    ("JPEG", "RGB", {"restart_marker_rows": 1, "exif": ROTATED}),
    ("PNG", "RGB", {}), ("PNG", "RGBA", {}), ("PNG", "P", {}), ("PNG", "1", {}), ("PNG", "I;16", {}),
    ("GIF", "P", {}), ("BMP", "RGB", {}), ("BMP", "P", {}), ("WEBP", "RGB", {}), ("WEBP", "RGBA", {"lossless": True}),
    ("TIFF", "RGB", {}), ("TIFF", "RGB", {"compression": "tiff_lzw"}), ("TIFF", "RGB", {"compression": "jpeg"}),
    ("TIFF", "1", {"compression": "group4"}), ("TIFF", "I;16", {}), ("TIFF", "F", {}),
    ("PPM", "RGB", {}), ("PPM", "L", {}),
    ("JPEG2000", "RGB", {}), ("AVIF", "RGB", {}), ("DDS", "RGBA", {}), ("BLP", "P", {}), ("SPIDER", "F", {}),
    ("ICO", "RGBA", {}), ("TGA", "RGB", {}), ("PCX", "RGB", {}), ("SGI", "RGB", {}), ("EPS", "RGB", {}),
    ("ICNS", "RGBA", {}),
)  # fmt: skip
"""Format, mode and options of the files that are damaged; also of formats that are refused."""
INTERPRETER = "gs"
"""Ghostscript, which Pillow starts for EPS files where it may."""


@cache
def source(number: int) -> bytes:
    """Return the valid file no. ``number`` of ``SOURCES``."""
    kind, mode, options = SOURCES[number]
    generator = np.random.default_rng(number)
    ramp = np.add.outer(np.arange(36), np.arange(50)) * 2
    pixels = (ramp[..., None] + generator.integers(0, 60, (36, 50, 3))).astype(np.uint8)
    image = Image.fromarray(pixels)
    if mode == "I;16":
        image = Image.fromarray(pixels[..., 0].astype(np.uint16) * 257)
    elif mode != "RGB":
        image = image.convert("L").convert(mode) if mode in {"P", "F"} else image.convert(mode)
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def with_size(data: bytes, width: int, height: int) -> bytes:
    """Write another size over the one in the header, in each way in which formats write it; repair PNG's sum."""
    damaged = data
    for form in (">II", ">HH", "<HH", "<II", "<ii"):
        for old in ((50, 36), (36, 50)):
            new = (width, height) if old == (50, 36) else (height, width)
            limit = 2 ** (8 * struct.calcsize(form) // 2) - 1 if form[-1] != "i" else 2**31 - 1
            damaged = damaged.replace(struct.pack(form, *old), struct.pack(form, *(min(n, limit) for n in new)))
    damaged = damaged.replace(b"50 36", f"{width} {height}".encode())
    for tag, side, new_side in ((256, 50, width), (257, 36, height)):  # of TIFF
        for kind, form in ((3, "<HHIHH"), (4, "<HHII")):
            rest = (0,) if kind == 3 else ()
            value = min(new_side, 65535) if kind == 3 else new_side
            damaged = damaged.replace(
                struct.pack(form, tag, kind, 1, side, *rest), struct.pack(form, tag, kind, 1, value, *rest)
            )
    return repaired(damaged)


def repaired(data: bytes) -> bytes:
    """Return a PNG file whose chunks have the sums that fit them, so that damage reaches the decoder."""
    if not data.startswith(b"\x89PNG"):
        return data
    out, at = bytearray(data[:8]), 8
    while at + 12 <= len(data):
        end = at + 8 + int.from_bytes(data[at : at + 4], "big")
        body = data[at + 4 : end]
        out += data[at : at + 4] + body + struct.pack(">I", zlib.crc32(body))
        at = end + 4
    return bytes(out)


def other_source(data: bytes, rng: random.Random) -> bytes:
    """Join the start of this file to the end of another."""
    other = source(rng.randrange(len(SOURCES)))
    at = place(data, rng)
    return data[:at] + other[min(at, len(other)) :]


@cache
def _zeros(size: int) -> bytes:
    return zlib.compress(bytes(size), 1)


def large_chunk(data: bytes, rng: random.Random, size: int) -> bytes:
    """Put a text or a profile that unpacks to ``size`` bytes into a PNG file, or a comment into the others."""
    packed = _zeros(size)
    if not data.startswith(b"\x89PNG"):
        return data[:2] + b"\xff\xfe" + struct.pack(">H", min(len(packed), 65000)) + packed[:64998] + data[2:]
    name = rng.choice((b"zTXt", b"iCCP", b"iTXt"))
    body = name + b"a\0" + (b"\1\0\0\0" if name == b"iTXt" else b"\0") + packed
    return data[:33] + struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body)) + data[33:]


DAMAGES: Mapping[str, Damage] = {
    "nothing": lambda data, _: data,
    **damage.DAMAGES,
    "bits, sums repaired": lambda data, rng: repaired(flip_bits(data, rng, 5)),
    "largest number in the head": lambda data, rng: overwrite(data, rng, b"\xff" * 4, head=120),
    "zero in the head": lambda data, rng: overwrite(data, rng, bytes(4), head=120),
    "huge size": lambda data, _: with_size(data, 65_000, 65_000),
    "size within the limit": lambda data, rng: with_size(data, *(8_900 if rng.random() < RARELY else 1_500,) * 2),
    "strip": lambda data, rng: with_size(data, *rng.choice(((100_000, 1), (1, 60_000)))),
    "no size": lambda data, _: with_size(data, 0, 0),
    "a little too large": lambda data, _: with_size(data, 51, 37),
    "two files": other_source,
    "megabytes of text": lambda data, rng: large_chunk(data, rng, 2**21),
    "too much text": lambda data, rng: large_chunk(data, rng, 2**28),
}
WAYS: Mapping[str, Callable[[str, bytes], object]] = {
    "square": lambda name, data: decode_image(name, data, (SIZE, SIZE)),
    "canvas": lambda name, data: decode_image(name, data, (SIZE, SIZE), how="letterbox"),
    "crop": lambda name, data: random_crop(
        name, data, size=SIZE, scale=(0.1, 1), seed=0, max_megapixels=MAX_MEGAPIXELS
    ),
}
"""How images are read."""


@contextlib.contextmanager
def opened() -> Iterator[Attack]:
    """Yield the attack; what is called Ghostscript meanwhile notes that it was started."""
    with tempfile.TemporaryDirectory() as name:
        started = Path(name) / "started"
        script = Path(name) / INTERPRETER
        script.write_text(f'#!/bin/sh\necho "$@" >>"{started}"\necho 10.0\n')
        script.chmod(0o755)
        os.environ["PATH"] = f"{name}:{os.environ['PATH']}"
        yield lambda rng, folder: attack(rng, folder, started)


def attack(rng: random.Random, folder: Path, started: Path) -> Outcome:
    """Damage one file and read it in all ways; ``started`` is there once Ghostscript was."""
    kind = rng.choice(list(DAMAGES))
    number = rng.randrange(len(SOURCES))
    file = folder / "image.png"
    file.write_bytes(DAMAGES[kind](source(number), rng))
    what = "{} {} {}".format(*SOURCES[number])
    peak = peak_from_here()
    read = 0
    for way, decode in WAYS.items():
        try:
            image = decode("image", read_image_bytes(file, "image"))
        except UserError as error:
            if not (str(error).startswith("image: ") and str(error).isprintable()):
                return Outcome(kind, "broke", f"{what}, {way}: not one line that names the file: {error!r}")
        except Exception:  # noqa: BLE001  (any other is what is looked for)
            return Outcome(kind, "broke", f"{what}, {way}: {traceback.format_exc()[-2000:]}")
        else:
            pixels = np.asarray(image)
            if pixels.dtype != np.uint8 or pixels.shape != (SIZE, SIZE, 3):
                return Outcome(kind, "broke", f"{what}, {way}: {pixels.dtype} {pixels.shape}")
            read += 1
    if (grown := peak.grown()) > LARGEST:
        return Outcome(kind, "broke", f"{what}: the process grew by {grown} MiB")
    if started.exists():
        started.unlink()
        return Outcome(kind, "broke", f"{what}: Ghostscript was started")
    return Outcome(kind, "harmless" if read else "held")
