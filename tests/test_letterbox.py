"""Whole images on a canvas: the same pixels for training and for consumers, whatever the format of the file."""

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.data.decoding import decode_image, decode_shown
from pipeline.data.letterbox import PADDING, letterbox_scale, letterboxed, letterboxed_size
from pipeline.data.reading import Fit, fitted, read_image, read_shown


def picture(height: int, width: int) -> np.ndarray:
    """Return a smooth image with a mark in each corner, so that a turned one is another."""
    rows, columns = np.mgrid[:height, :width]
    image = np.stack([rows * 255 / height, columns * 255 / width, (rows + columns) % 256], axis=2).astype(np.uint8)
    for number, (row, column) in enumerate([(0, 0), (0, width // 2), (height // 2, 0), (height // 2, width // 2)]):
        image[row : row + height // 8, column : column + width // 8] = 60 * number
    return image


def encoded(image: np.ndarray, kind: str, orientation: int = 1) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    Image.fromarray(image).save(file, kind, quality=95, exif=exif)
    return file.getvalue()


@pytest.mark.parametrize(
    ("size", "image_size", "expected"),
    [
        ((30, 60), (64, 64), (32, 64)),
        ((60, 30), (64, 64), (64, 32)),
        ((64, 48), (64, 48), (64, 48)),
        ((480, 640), (96, 64), (48, 64)),
        ((1, 2000), (32, 32), (1, 32)),
    ],
)
def test_images_keep_their_shape_and_the_rest_is_padding(
    size: tuple[int, int], image_size: tuple[int, int], expected: tuple[int, int]
) -> None:
    assert letterboxed_size(size, image_size) == expected
    assert letterbox_scale(size, image_size) == min(image_size[0] / size[0], image_size[1] / size[1])
    shown = letterboxed(np.full((*size, 3), 7, np.uint8), image_size)
    assert shown.shape == (*image_size, 3)
    assert (shown[: expected[0], : expected[1]] == 7).all()
    assert (shown[expected[0] :] == PADDING).all()
    assert (shown[:, expected[1] :] == PADDING).all()


def test_an_image_of_the_size_is_left_as_it_is() -> None:
    image = picture(40, 24)
    np.testing.assert_array_equal(letterboxed(image, (40, 24)), image)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_files_in_memory_and_of_cameras_are_shown_alike(tmp_path: Path, orientation: int) -> None:
    file = tmp_path / "image.png"
    file.write_bytes(encoded(picture(30, 50), "PNG", orientation))
    whole = read_image("image", file, Fit())
    fit = Fit((64, 96), how="letterbox")
    shown = read_shown("image", file, fit)
    assert shown.size == whole.shape[:2] == ((30, 50) if orientation < 5 else (50, 30))
    np.testing.assert_array_equal(shown.pixels, letterboxed(whole, (64, 96)))
    np.testing.assert_array_equal(fitted(whole, fit), shown.pixels)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_large_jpeg_is_decoded_reduced_and_looks_the_same(orientation: int) -> None:
    """Sides that 8 does not divide: the last reduced pixels are parts, which must not move the rest."""
    data = encoded(picture(1501, 2003), "JPEG", orientation)
    whole = decode_image("image", data)
    shown = decode_shown("image", data, (96, 64), how="letterbox")
    assert shown.size == whole.shape[:2]
    difference = np.abs(shown.pixels.astype(int) - letterboxed(whole, (96, 64)))
    assert difference.mean() < 0.5
    assert decode_image("image", data, (96, 64), max_megapixels=1, how="letterbox").shape == (96, 64, 3), "is reduced"


def test_consumers_need_no_pytorch() -> None:
    program = "import sys, pipeline.data.letterbox, pipeline.data.reading; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)
