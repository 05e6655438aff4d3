"""Damage to bytes that files of any format may have: each takes the bytes and a generator, and returns others."""

import random
from collections.abc import Callable, Mapping

Damage = Callable[[bytes, random.Random], bytes]


def place(data: bytes, rng: random.Random, *, head: int | None = None) -> int:
    """Return a place in ``data``, or among its first ``head`` bytes."""
    return rng.randrange(max(1, min(len(data), head or len(data))))


def piece(data: bytes, rng: random.Random, longest: int = 64) -> tuple[int, int]:
    """Return start and end of a few bytes in ``data``."""
    at = place(data, rng)
    return at, at + rng.randrange(1, longest)


def flip_bits(data: bytes, rng: random.Random, count: int = 1, head: int | None = None) -> bytes:
    damaged = bytearray(data or b"\0")
    for _ in range(count):
        damaged[place(data, rng, head=head)] ^= 1 << rng.randrange(8)
    return bytes(damaged)


def overwrite(data: bytes, rng: random.Random, new: bytes, head: int | None = None) -> bytes:
    """Write ``new`` over some part of ``data``, which keeps its length but at its end."""
    at = place(data, rng, head=head)
    return data[:at] + new + data[at + len(new) :]


def number(data: bytes, rng: random.Random, head: int | None = None) -> bytes:
    """Write a number that is the edge of something over some part of ``data``, in 1, 2, 4 or 8 bytes."""
    width = rng.choice((1, 2, 4, 8))
    value = rng.choice((0, 1, 2 ** (8 * width) - 1, 2 ** (8 * width - 1) - 1, rng.randrange(2 ** (8 * width))))
    return overwrite(data, rng, value.to_bytes(width, rng.choice(("little", "big"))), head)


def drop_piece(data: bytes, rng: random.Random) -> bytes:
    start, end = piece(data, rng)
    return data[:start] + data[end:]


def repeat_piece(data: bytes, rng: random.Random) -> bytes:
    start, end = piece(data, rng)
    return data[:end] + data[start:end] * rng.randrange(1, 20) + data[end:]


def swap_pieces(data: bytes, rng: random.Random) -> bytes:
    start, end = sorted(place(data, rng) for _ in range(2))
    middle = (start + end) // 2
    return data[:start] + data[middle:end] + data[start:middle] + data[end:]


def shuffle(data: bytes, rng: random.Random) -> bytes:
    start, end = piece(data, rng, 256)
    mixed = list(data[start:end])
    rng.shuffle(mixed)
    return data[:start] + bytes(mixed) + data[end:]


def fill(data: bytes, rng: random.Random, value: int) -> bytes:
    """Write ``value`` over up to 200 bytes."""
    start, end = piece(data, rng, 200)
    return data[:start] + bytes([value]) * (min(end, len(data)) - start) + data[end:]


DAMAGES: Mapping[str, Damage] = {
    "one bit": flip_bits,
    "ten bits": lambda data, rng: flip_bits(data, rng, 10),
    "a hundred bits": lambda data, rng: flip_bits(data, rng, 100),
    "one bit of the head": lambda data, rng: flip_bits(data, rng, 1, 64),
    "ten bits of the head": lambda data, rng: flip_bits(data, rng, 10, 200),
    "cut off": lambda data, rng: data[: place(data, rng)],
    "cut off in the head": lambda data, rng: data[: place(data, rng, head=64)],
    "last byte gone": lambda data, _: data[:-1],
    "start gone": lambda data, rng: data[place(data, rng, head=32) :],
    "piece gone": drop_piece,
    "piece repeated": repeat_piece,
    "pieces swapped": swap_pieces,
    "bytes shuffled": shuffle,
    "zeros": lambda data, rng: fill(data, rng, 0),
    "ones": lambda data, rng: fill(data, rng, 255),
    "random bytes": lambda data, rng: overwrite(data, rng, rng.randbytes(rng.randrange(1, 64))),
    "random tail": lambda data, rng: data[: place(data, rng)] + rng.randbytes(200),
    "rubbish behind": lambda data, rng: data + rng.randbytes(rng.randrange(1, 4096)),
    "a number": number,
    "a number in the head": lambda data, rng: number(data, rng, 120),
}
"""What happens to files on disks and lines, and what people try; of no format in particular."""
