"""One image file to pixels: what is read, what is refused, what it costs."""

import io
import os
import resource
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageOps, PngImagePlugin
from sklearn.datasets import load_sample_images

from pipeline.core.errors import UserError
from pipeline.data.decoding import central_square, decode_image, decode_shown
from pipeline.data.image_kinds import openable_formats
from tests.helpers import ROOT, image_bytes

PHOTO = load_sample_images().images[0]  # 640 x 427


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def header_png(width: int, height: int) -> bytes:
    """Return a PNG file whose header promises a grey image of so many pixels, and nearly nothing behind it."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    )


def exact(picture: Image.Image, size: int) -> NDArray[np.uint8]:
    """Return what decoding all of an image and then resizing all of it gives."""
    return central_square(np.asarray(ImageOps.exif_transpose(picture).convert("RGB")), size)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM", "JPEG2000", "AVIF"])
def test_each_format_is_read(kind: str) -> None:
    shown = decode_image("image", encoded(Image.fromarray(PHOTO), kind))
    assert shown.shape == PHOTO.shape
    assert np.abs(shown.astype(int) - PHOTO).mean() < 12


def test_nothing_but_images_is_given_to_a_decoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow would start Ghostscript for an EPS file, whatever it is called."""
    called = tmp_path / "called"
    (tmp_path / "gs").write_text(f"#!/bin/sh\necho 10.0 | tee -a {called}\n")
    (tmp_path / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n"
    with pytest.raises(UserError, match=r"a.png: not an image of a known format"):
        decode_image("a.png", eps)
    assert not called.exists()


@pytest.mark.parametrize(
    "kind", ["AVIF", "DDS", "JPEG", "WEBP", "TIFF", "PNG", "GIF", "BMP", "JPEG2000", "SPIDER", "BLP"]
)
def test_a_damaged_file_is_one_line_that_names_it(kind: str) -> None:
    mode = {"SPIDER": "F", "BLP": "P"}.get(kind, "RGB")
    data = encoded(Image.fromarray(PHOTO[:40, :60]).convert("L").convert(mode), kind)
    for end in (9, 20, 40, len(data) // 4, len(data) // 2):
        with pytest.raises(UserError, match=r"^here\.png: [^\n]+ (repair|remove|convert)[^\n]+$"):
            decode_image("here.png", data[:end])


def test_a_fault_of_ours_is_not_taken_for_one_of_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("pipeline.data.decoding._decode", broken)
    monkeypatch.setattr("pipeline.data.decoding.load_upright", broken)
    with pytest.raises(ZeroDivisionError):
        decode_image("image", image_bytes(), (4, 4))


@pytest.mark.parametrize(("width", "height"), [(30_000, 2), (1, 100_000), (100_000, 1)])
def test_a_strip_is_cut_before_it_is_resized(width: int, height: int) -> None:
    ramp = np.zeros((height, width, 3), dtype=np.uint8)
    ramp[:, width // 2 :, 0] = 200
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    shown = decode_image("strip", encoded(Image.fromarray(ramp), "PNG"), (64, 64))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KB
    assert shown.shape == (64, 64, 3)
    if width > height:
        assert (shown[:, :3, 0] < 20).all()
        assert (shown[:, -3:, 0] > 180).all()


def test_what_is_cut_before_resizing_equals_what_is_cut_after() -> None:
    strip = PHOTO[100:140]  # 640 x 40
    whole = Image.fromarray(strip).resize((512, 32), Image.Resampling.BICUBIC).crop((240, 0, 272, 32))
    shown = decode_image("strip", encoded(Image.fromarray(strip), "PNG"), (32, 32))
    assert np.abs(shown.astype(int) - np.asarray(whole)).max() <= 1


def test_a_large_photo_is_decoded_at_a_reduced_scale_that_shows_the_same() -> None:
    picture = Image.fromarray(PHOTO).resize((2560, 1708), Image.Resampling.BICUBIC)
    data = encoded(picture, "JPEG", quality=92)
    shown = decode_image("photo", data, (96, 96))
    difference = np.abs(shown.astype(int) - exact(Image.open(io.BytesIO(data)), 96))
    assert difference.mean() < 1
    assert difference.max() < 16
    assert difference.any(), "decoded whole"


def test_small_photos_keep_each_bit() -> None:
    data = encoded(Image.fromarray(PHOTO), "JPEG")
    for size in (32, 224, 500):
        np.testing.assert_array_equal(
            decode_image("photo", data, (size, size)), exact(Image.open(io.BytesIO(data)), size)
        )


def test_a_photo_of_108_megapixels_is_read_in_little_memory(tmp_path: Path) -> None:
    file = tmp_path / "phone.jpg"
    Image.new("RGB", (12_000, 9_000), (120, 90, 60)).save(file, quality=60)
    program = (
        "import sys, pathlib\n"
        "from pipeline.data.decoding import decode_image\n"
        "shown = decode_image('phone', pathlib.Path(sys.argv[1]).read_bytes(), (224, 224))\n"
        "status = pathlib.Path('/proc/self/status').read_text().partition('VmHWM:')[2]\n"
        "print(shown.mean(axis=(0, 1)).round().tolist(), status.split()[0])\n"
    )
    done = subprocess.run([sys.executable, "-c", program, file], capture_output=True, text=True, check=True, cwd=ROOT)
    colour, _, peak = done.stdout.strip().rpartition(" ")
    assert colour == "[121.0, 90.0, 62.0]", "as the file has it after its compression"
    assert int(peak) < 300_000  # KB


def test_the_limit_of_pixels_is_checked_from_the_header() -> None:
    with pytest.raises(UserError, match=r"huge: has 60000 x 60000 pixels.*prepare_data.max_megapixels"):
        decode_image("huge", header_png(60_000, 60_000), (32, 32))
    data = image_bytes(size=(200, 100))
    with pytest.raises(UserError, match=r"allowed are 0.01 million"):
        decode_image("image", data, max_megapixels=0.01)
    assert decode_image("image", data, max_megapixels=0.02).shape == (100, 200, 3)


@pytest.mark.parametrize("what", ["text", "profile"])
def test_a_png_file_with_megabytes_beside_its_pixels_is_read(what: str) -> None:
    info = PngImagePlugin.PngInfo()
    if what == "text":
        info.add_text("XML:com.adobe.xmp", "x" * (2 * 2**20), zip=True)
    options = {"pnginfo": info} if what == "text" else {"icc_profile": bytes(range(256)) * 8192}
    np.testing.assert_array_equal(decode_image("image", encoded(Image.fromarray(PHOTO), "PNG", **options)), PHOTO)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM", "JPEG2000"])
def test_grey_of_16_bits_keeps_its_upper_8(kind: str) -> None:
    values = np.arange(0, 65536, 16, dtype=np.uint16).reshape(64, 64)
    shown = decode_image("xray", encoded(Image.fromarray(values), kind))
    np.testing.assert_array_equal(shown, np.repeat((values >> 8)[..., None], 3, axis=2))


def test_values_without_a_range_are_refused() -> None:
    for values in (np.zeros((4, 4), np.int32), np.zeros((4, 4), np.float32)):
        with pytest.raises(UserError, match=r"depth.tif: .* have no known range; convert it to 8 or 16 bits"):
            decode_image("depth.tif", encoded(Image.fromarray(values), "TIFF"))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientations_are_applied(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(Image.fromarray(PHOTO[:80, :120]), kind, exif=exif)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))
    np.testing.assert_array_equal(decode_image("image", data), expected)
    np.testing.assert_array_equal(decode_image("image", data, (24, 24)), central_square(expected, 24))


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("size", [None, (64, 64)])
def test_a_photo_tells_its_size_as_it_is_shown(size: tuple[int, int] | None, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    for width, height, kind in ((2563, 1709, "JPEG"), (2563, 1709, "PNG"), (120, 80, "JPEG")):
        shown = decode_shown("photo", encoded(Image.new("RGB", (width, height)), kind, exif=exif), size)
        assert shown.size == ((height, width) if orientation == 1 else (width, height))
        assert shown.pixels.shape == (*(size or shown.size), 3)


@pytest.mark.parametrize("note", [b"", b"II*\0", bytes(range(40)), b"II*\0\x08\0\0\0\xff\xff" + bytes(30)])
def test_a_note_of_the_camera_that_cannot_be_read_is_none(note: bytes) -> None:
    data = encoded(Image.fromarray(PHOTO[:80, :120]), "JPEG")
    payload = b"Exif\0\0" + note
    noted = data[:2] + b"\xff\xe1" + struct.pack(">H", len(payload) + 2) + payload + data[2:]
    np.testing.assert_array_equal(decode_image("image", noted), decode_image("image", data))


def test_decoding_needs_no_pytorch() -> None:
    program = "import sys, pipeline.data.decoding; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "False"


def test_heic_without_its_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    monkeypatch.delitem(Image.OPEN, "HEIF", raising=False)
    openable_formats.cache_clear()
    with pytest.raises(UserError, match=r"^IMG_1\.HEIC: .*pip install pillow-heif"):
        decode_image("IMG_1.HEIC", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(200))
    openable_formats.cache_clear()
