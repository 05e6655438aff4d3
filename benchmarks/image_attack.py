"""Damage image files in many ways, and see that the decoder either reads each or refuses it in one line.

    python benchmarks/image_attack.py --count 43000         # all kinds of damage, to files of all formats, seeded
    python benchmarks/image_attack.py --only 17             # one case again, in this process

Each case is a valid file of some format and mode, damaged in one of the ways of ``DAMAGES``, then decoded for a central
square and, where that can be read, for a random crop, as prepare_data and training do. What counts as a fault: any
exception but the decoder's own error, an error of more than one line, more than a minute, or a process that holds more
than ``--limit`` MiB. It ends with 1 where there is one.
"""

import io
import multiprocessing
import signal
import struct
import sys
import time
import traceback
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import cache
from pathlib import Path
from typing import NamedTuple

import click
import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent.parent))

from pipeline.core.errors import UserError
from pipeline.core.processes import num_cores
from pipeline.data.decoding import MAX_MEGAPIXELS, decode_image
from pipeline.data.random_crops import random_crop

Random = np.random.Generator
SECONDS = 60
RARELY = 0.03
ROTATED = b"Exif\0\0II*\0\x08\0\0\0\1\0\x12\1\3\0\1\0\0\0\6\0\0\0\0\0\0\0"
SOURCES = (
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


@cache
def source(number: int) -> bytes:
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


def place(data: bytes, random: Random, *, head: int | None = None) -> int:
    return int(random.integers(0, max(1, min(len(data), head or len(data)))))


def flip_bits(data: bytes, random: Random, count: int = 1, head: int | None = None) -> bytes:
    damaged = bytearray(data)
    for _ in range(count):
        damaged[place(data, random, head=head)] ^= 1 << int(random.integers(8))
    return bytes(damaged)


def overwrite(data: bytes, random: Random, new: bytes, head: int | None = None) -> bytes:
    at = place(data, random, head=head)
    return data[:at] + new + data[at + len(new) :]


def piece(data: bytes, random: Random, longest: int = 64) -> tuple[int, int]:
    at = place(data, random)
    return at, at + int(random.integers(1, longest))


def drop_piece(data: bytes, random: Random) -> bytes:
    start, end = piece(data, random)
    return data[:start] + data[end:]


def repeat_piece(data: bytes, random: Random) -> bytes:
    start, end = piece(data, random)
    return data[:end] + data[start:end] * int(random.integers(1, 20)) + data[end:]


def swap_pieces(data: bytes, random: Random) -> bytes:
    start, end = sorted(place(data, random) for _ in range(2))
    middle = (start + end) // 2
    return data[:start] + data[middle:end] + data[start:middle] + data[end:]


def shuffle(data: bytes, random: Random) -> bytes:
    start, end = piece(data, random, 256)
    return data[:start] + random.permutation(np.frombuffer(data[start:end], np.uint8)).tobytes() + data[end:]


def fill(data: bytes, random: Random, value: int) -> bytes:
    start, end = piece(data, random, 200)
    return data[:start] + bytes([value]) * (min(end, len(data)) - start) + data[end:]


def number_in_head(data: bytes, random: Random, value: int, form: str) -> bytes:
    return overwrite(data, random, struct.pack(form, value), head=120)


def with_size(data: bytes, width: int, height: int) -> bytes:
    """Write another size over the one in the header, in each way in which formats write it; repair PNG's sum."""
    damaged = data
    for form in (">II", ">HH", "<HH", "<II", "<ii"):
        for old in ((50, 36), (36, 50)):
            new = (width, height) if old == (50, 36) else (height, width)
            limit = 2 ** (8 * struct.calcsize(form) // 2) - 1 if form[-1] != "i" else 2**31 - 1
            damaged = damaged.replace(struct.pack(form, *old), struct.pack(form, *(min(n, limit) for n in new)))
    damaged = damaged.replace(b"50 36", f"{width} {height}".encode())
    for tag, old, new in ((256, 50, width), (257, 36, height)):  # of TIFF
        for kind, form in ((3, "<HHIHH"), (4, "<HHII")):
            rest = (0,) if kind == 3 else ()
            new_value = min(new, 65535) if kind == 3 else new
            damaged = damaged.replace(
                struct.pack(form, tag, kind, 1, old, *rest), struct.pack(form, tag, kind, 1, new_value, *rest)
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


def other_source(data: bytes, random: Random) -> bytes:
    """Join the start of this file to the end of another."""
    other = source(int(random.integers(len(SOURCES))))
    at = place(data, random)
    return data[:at] + other[min(at, len(other)) :]


@cache
def zeros(size: int) -> bytes:
    return zlib.compress(bytes(size), 1)


def large_chunk(data: bytes, random: Random, size: int) -> bytes:
    """Put a text or a profile that unpacks to ``size`` bytes into a PNG file, or a comment into the others."""
    packed = zeros(size)
    if not data.startswith(b"\x89PNG"):
        return data[:2] + b"\xff\xfe" + struct.pack(">H", min(len(packed), 65000)) + packed[:64998] + data[2:]
    name = (b"zTXt", b"iCCP", b"iTXt")[int(random.integers(3))]
    body = name + b"a\0" + (b"\1\0\0\0" if name == b"iTXt" else b"\0") + packed
    return data[:33] + struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body)) + data[33:]


Damage = Callable[[bytes, Random], bytes]
DAMAGES: dict[str, Damage] = {
    "nothing": lambda data, _: data,
    "one bit": flip_bits,
    "ten bits": lambda data, random: flip_bits(data, random, 10),
    "a hundred bits": lambda data, random: flip_bits(data, random, 100),
    "one bit of the head": lambda data, random: flip_bits(data, random, 1, 64),
    "ten bits of the head": lambda data, random: flip_bits(data, random, 10, 200),
    "bits, sums repaired": lambda data, random: repaired(flip_bits(data, random, 5)),
    "cut off": lambda data, random: data[: place(data, random)],
    "cut off in the head": lambda data, random: data[: place(data, random, head=64)],
    "last byte gone": lambda data, _: data[:-1],
    "start gone": lambda data, random: data[place(data, random, head=32) :],
    "piece gone": drop_piece,
    "piece repeated": repeat_piece,
    "pieces swapped": swap_pieces,
    "bytes shuffled": shuffle,
    "zeros": lambda data, random: fill(data, random, 0),
    "ones": lambda data, random: fill(data, random, 255),
    "random bytes": lambda data, random: overwrite(data, random, random.bytes(int(random.integers(1, 64)))),
    "random tail": lambda data, random: data[: place(data, random)] + random.bytes(200),
    "rubbish behind": lambda data, random: data + random.bytes(int(random.integers(1, 4096))),
    "largest number in the head": lambda data, random: number_in_head(data, random, 2**32 - 1, ">I"),
    "large number in the head": lambda data, random: number_in_head(data, random, int(random.integers(2**31)), "<I"),
    "zero in the head": lambda data, random: number_in_head(data, random, 0, ">I"),
    "huge size": lambda data, _: with_size(data, 65_000, 65_000),
    "size within the limit": lambda data, random: with_size(data, *(8_900 if random.random() < RARELY else 1_500,) * 2),
    "strip": lambda data, random: with_size(data, *[(100_000, 1), (1, 60_000)][int(random.integers(2))]),
    "no size": lambda data, _: with_size(data, 0, 0),
    "a little too large": lambda data, _: with_size(data, 51, 37),
    "two files": other_source,
    "megabytes of text": lambda data, random: large_chunk(data, random, 2**21),
    "too much text": lambda data, random: large_chunk(data, random, 2**28),
}


class Case(NamedTuple):
    """A damaged file."""

    number: int
    damage: str
    kind: str
    data: bytes


def make_case(number: int, seed: int) -> Case:
    random = np.random.default_rng([seed, number])
    damage = list(DAMAGES)[number % len(DAMAGES)]
    origin = int(random.integers(len(SOURCES)))
    return Case(number, damage, SOURCES[origin][0], DAMAGES[damage](source(origin), random))


def attempt(case: Case) -> tuple[str, str]:
    """Return how the case ended, ``read``, ``refused`` or ``fault``, and what is wrong."""
    ways: dict[str, Callable[[], object]] = {
        "square": lambda: decode_image("case", case.data, (32, 32)),
        "crop": lambda: random_crop("case", case.data, size=32, scale=(0.1, 1), seed=0, max_megapixels=MAX_MEGAPIXELS),
    }
    for way, decode in ways.items():
        try:
            signal.alarm(SECONDS)
            decode()
        except UserError as error:
            if "\n" in str(error) or not str(error).startswith("case: "):
                return "fault", f"{way}: not one line that names the file: {error}"
            return "refused", ""
        except BaseException:  # noqa: BLE001  (any other is what is looked for)
            return "fault", f"{way}: {traceback.format_exc()}"
        finally:
            signal.alarm(0)
    return "read", ""


def peak_mib() -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) // 2**10


class TooLongError(BaseException):
    """A decoder hangs; no ``Exception``, which the decoder would take for a damaged file."""


def _too_long(*_: object) -> None:
    raise TooLongError


def run_cases(numbers: range, seed: int) -> tuple[Counter[tuple[str, str]], list[str], int]:
    """Return how many cases ended how, by damage; the faults; and the most MiB that this process has held."""
    signal.signal(signal.SIGALRM, _too_long)
    ends: Counter[tuple[str, str]] = Counter()
    faults = []
    for number in numbers:
        case = make_case(number, seed)
        end, why = attempt(case)
        ends[case.damage, end] += 1
        if end == "fault":
            faults.append(f"case {number} ({case.kind}, {case.damage}): {why}")
    return ends, faults, peak_mib()


def parts(count: int, size: int = 250) -> Iterator[range]:
    return (range(start, min(start + size, count)) for start in range(0, count, size))


@click.command()
@click.option("--count", default=1000, show_default=True, help="Cases.")
@click.option("--seed", default=0, show_default=True)
@click.option("--limit", default=1000, show_default=True, help="MiB that no process may exceed.")
@click.option("--only", type=int, help="Try this case alone and show its bytes.")
def main(count: int, seed: int, limit: int, only: int | None) -> None:
    """Print a table of damages and how they ended."""
    if only is not None:
        case = make_case(only, seed)
        click.echo(f"{case.kind}, {case.damage}, {len(case.data)} bytes, {case.data[:64]!r}...")
        click.echo(f"{attempt(case)}, {peak_mib()} MiB")
        return
    started = time.monotonic()
    ends: Counter[tuple[str, str]] = Counter()
    faults: list[str] = []
    largest = 0
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(num_cores(), context) as pool:
        answers = [(part, pool.submit(run_cases, part, seed)) for part in parts(count)]
        for part, answer in answers:
            try:
                found, wrong, peak = answer.result()
            except BrokenProcessPool:
                faults.append(f"a process has ended in one of the cases {part.start} to {part.stop - 1} or beside them")
                break
            ends += found
            faults += wrong
            largest = max(largest, peak)
    click.echo(f"{'damage':28}{'read':>8}{'refused':>9}{'fault':>7}")
    for damage in DAMAGES:
        click.echo(f"{damage:28}{ends[damage, 'read']:8}{ends[damage, 'refused']:9}{ends[damage, 'fault']:7}")
    for fault in faults[:20]:
        click.echo(fault)
    click.echo(
        f"{ends.total()} cases, {len(DAMAGES)} kinds of damage, {len(SOURCES)} kinds of files, {len(faults)} faults, "
        f"largest process {largest} MiB, {time.monotonic() - started:.0f} s"
    )
    sys.exit(1 if faults or largest > limit else 0)


if __name__ == "__main__":
    main()
