"""Which files are images: by their first bytes, whatever they are called."""

import contextlib
import functools
import re
from pathlib import PurePath
from typing import NamedTuple

from PIL import Image


class ImageKind(NamedTuple):
    """A format of images that is read."""

    name: str
    """As Pillow calls it."""
    signature: bytes
    """A regular expression that the first ``HEAD`` bytes of a file match."""
    suffixes: tuple[str, ...]
    """Endings, in lower case, by which a file claims to be one."""


IMAGE_KINDS = (
    ImageKind("JPEG", rb"\xff\xd8\xff", (".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".pjpeg", ".pjp")),
    ImageKind("PNG", rb"\x89PNG\r\n\x1a\n", (".png", ".apng")),
    ImageKind("GIF", rb"GIF8[79]a", (".gif",)),
    ImageKind("BMP", rb"BM.{12}[\x0c\x10\x28\x34\x38\x40\x6c\x7c]\x00\x00\x00", (".bmp", ".dib")),
    ImageKind("WEBP", rb"RIFF.{4}WEBP", (".webp",)),
    ImageKind("TIFF", rb"II[*+]\x00|MM\x00[*+]", (".tif", ".tiff")),
    ImageKind("PPM", rb"P[1-6]\s+[#\d]", (".ppm", ".pgm", ".pbm", ".pnm")),
    ImageKind(
        "JPEG2000",
        rb"\x00\x00\x00\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51",
        (".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx"),
    ),
    ImageKind("AVIF", rb".{4}ftyp(avi[fs]|m[is]f1.{4}(.{4})*?avi[fs])", (".avif", ".avifs")),
    ImageKind("HEIF", rb".{4}ftyp(hei[cxms]|hev[cxms]|m[is]f1)", (".heic", ".heics", ".heif", ".heifs", ".hif")),
)
"""The formats that are read; nothing else that Pillow knows is ever tried on a user's file."""
HEAD = 64
"""Bytes at the start of a file that tell what it is."""

_SIGNATURES = [(re.compile(kind.signature, re.DOTALL), kind.name) for kind in IMAGE_KINDS]
_SUFFIXES = frozenset(suffix for kind in IMAGE_KINDS for suffix in kind.suffixes)
_RAW = frozenset((".arw", ".cr2", ".dcr", ".dng", ".erf", ".kdc", ".mos", ".nef", ".nrw", ".pef", ".raw", ".srw"))
"""Endings of cameras' raw files: TIFF to look at, but what Pillow would find in them is a thumbnail."""


def image_format(head: bytes) -> str | None:
    """Return the name of the kind that a file with the first ``HEAD`` bytes ``head`` has; None: it is no image."""
    return next((name for pattern, name in _SIGNATURES if pattern.match(head)), None)


def claims_to_be_image(name: str) -> bool:
    """Return whether a file of this ``name`` is called like an image: one that cannot be read is then a damaged one."""
    return PurePath(name).suffix.lower() in _SUFFIXES


def looks_like_image(name: str, head: bytes) -> bool:
    """Return whether a file that starts with ``head`` is an image, although its ``name`` does not say so."""
    return image_format(head) is not None and PurePath(name).suffix.lower() not in _RAW


@functools.cache
def openable_formats() -> tuple[str, ...]:
    """Return the kinds that Pillow opens here, by its names; HEIF where the package pillow-heif is installed."""
    Image.init()
    with contextlib.suppress(ModuleNotFoundError):
        from pillow_heif import register_heif_opener

        register_heif_opener()
    return tuple(kind.name for kind in IMAGE_KINDS if kind.name in Image.OPEN)


def how_to_open(head: bytes) -> str | None:
    """Return what to do about a file that starts with ``head`` where its format is not one that is opened here.

    None: nothing, it is opened, or it is no image.
    """
    found = image_format(head)
    if found is None or found in openable_formats():
        return None
    if found == "HEIF":
        return "a HEIC image, which needs the package pillow-heif (pip install pillow-heif); or convert it to JPEG"
    return f"a {found} image, which the Pillow installed here was built without; convert it to JPEG or PNG"
