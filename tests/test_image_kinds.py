"""Images are recognised by their first bytes."""

import io
from pathlib import Path

import pytest
from PIL import Image, features

from pipeline.core.errors import UserError
from pipeline.data import image_kinds
from pipeline.data.decoding import decode_image
from pipeline.data.image_kinds import HEAD, IMAGE_KINDS, claims_to_be_image, how_to_open, image_format, looks_like_image
from tests.helpers import image_bytes

NEEDS = {"AVIF": "avif", "JPEG2000": "jpg_2000", "WEBP": "webp"}
HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(80)


def encoded(kind: str) -> bytes:
    """Return an image that Pillow wrote as ``kind``."""
    if kind in NEEDS and not features.check(NEEDS[kind]):
        pytest.skip(f"this Pillow is built without {kind}")
    return image_bytes(kind=kind, size=(16, 12))


@pytest.mark.parametrize("kind", [kind.name for kind in IMAGE_KINDS if kind.name != "HEIF"])
def test_what_pillow_writes_is_recognised_and_read(kind: str) -> None:
    data = encoded(kind)
    assert image_format(data[:HEAD]) == kind
    assert looks_like_image("no suffix", data[:HEAD])
    assert decode_image("image", data).shape == (12, 16, 3)


@pytest.mark.parametrize("mode", ["1", "L"])
def test_kinds_of_ppm_are_recognised(mode: str) -> None:
    assert image_format(image_bytes(kind="PPM", mode=mode)[:HEAD]) == "PPM"


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"BMW and others, with many words that follow after",
        b"P1 is a car",
        b"PK\3\4",
        b"%!PS-Adobe-3.0 EPSF-3.0",
        b"RIFF\0\0\0\0WAVEfmt ",
        b"\0\0\0\x18ftypisom\0\0\0\0isomiso2",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"II-and MM are letters",
    ],
)
def test_what_is_no_image_is_not_taken_for_one(head: bytes) -> None:
    assert image_format(head) is None
    assert not looks_like_image("a", head)


def test_suffixes_are_compared_in_lower_case() -> None:
    assert claims_to_be_image("IMG_1.JPG")
    assert claims_to_be_image("a.b.Jfif")
    assert not claims_to_be_image("jpg")
    assert not claims_to_be_image("a.jpg.txt")


def test_raw_files_of_cameras_are_no_images() -> None:
    head = image_bytes(kind="TIFF")[:HEAD]
    assert looks_like_image("a", head)
    assert not looks_like_image("a.NEF", head)


def test_heic_says_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_kinds, "openable_formats", lambda: ("JPEG", "PNG"))
    assert image_format(HEIC[:HEAD]) == "HEIF"
    assert "pillow-heif" in str(how_to_open(HEIC[:HEAD]))
    with pytest.raises(
        UserError, match=r"a.heic: a HEIC image, which needs the package pillow-heif \(pip install .*JPEG"
    ):
        decode_image("a.heic", HEIC)
    assert how_to_open(image_bytes()[:HEAD]) is None


def test_only_the_listed_formats_are_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An EPS file under another name would start Ghostscript."""
    (tmp_path / "gs").write_text(f"#!/bin/sh\ntouch {tmp_path}/called\n")
    (tmp_path / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    eps = io.BytesIO()
    Image.new("RGB", (8, 8)).save(eps, "EPS")
    with pytest.raises(UserError, match=r"x.png: not an image of a known format"):
        decode_image("x.png", eps.getvalue())
    assert not (tmp_path / "called").exists()
