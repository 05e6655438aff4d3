"""Random crops of files: the part of the image that they say, whatever is decoded for it."""

import io
import random
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from sklearn.datasets import load_sample_images
from torch import Tensor
from torchvision.transforms.v2 import functional

from pipeline.core.errors import UserError
from pipeline.data.decoding import load_part, open_image
from pipeline.data.random_crops import Box, random_box, random_crop

PHOTO = Image.fromarray(load_sample_images().images[0])  # 640 x 427
SCALE = (0.08, 1.0)


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def crop(data: bytes, seed: int, size: int = 48, scale: tuple[float, float] = SCALE) -> Tensor:
    return random_crop("photo", data, size=size, scale=scale, seed=seed, max_megapixels=10)


def box_of(width: int, height: int, seed: int) -> Box:
    return random_box(width, height, SCALE, random.Random(seed))  # noqa: S311


def reference(image: Image.Image, box: Box, size: int) -> Tensor:
    """Return what torchvision makes of the whole image."""
    pixels = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)
    cut = functional.resized_crop(pixels, box.top, box.left, box.height, box.width, [size, size], antialias=True)
    return cut.permute(1, 2, 0)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("JPEG", {"subsampling": "4:2:0"}),
        ("JPEG", {"subsampling": "4:4:4"}),
        ("JPEG", {"progressive": True}),
        ("JPEG", {"restart_marker_rows": 1}),
        ("PNG", {}),
        ("WEBP", {}),
    ],
)
def test_a_crop_is_that_of_the_image_decoded_whole(kind: str, options: dict[str, Any]) -> None:
    data = encoded(PHOTO, kind, **options)
    image = Image.open(io.BytesIO(data))
    for seed in range(12):
        box = box_of(640, 427, seed)
        size = max(min(box.width, box.height) // 2 + 1, 1)  # nothing can be reduced
        assert torch.equal(crop(data, seed, size), reference(image, box, size))


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_grey_files_and_those_of_printing_are_cut(mode: str) -> None:
    data = encoded(PHOTO.convert(mode), "JPEG")
    for seed in range(4):
        expected = reference(Image.open(io.BytesIO(data)), box_of(640, 427, seed), 200)
        assert torch.equal(crop(data, seed, 200), expected)


def test_a_crop_with_pixels_to_spare_is_reduced_and_shows_the_same() -> None:
    """Within two levels of 255 on average: a reduced scale averages pixels before they are resized."""
    data = encoded(PHOTO.resize((2560, 1704), Image.Resampling.BICUBIC), "JPEG", quality=92)
    image, factors = Image.open(io.BytesIO(data)), set()
    for seed, size in [(seed, size) for seed in range(8) for size in (64, 150)]:
        box = box_of(2560, 1704, seed)
        factor = max(f for f in (1, 2, 4, 8) if min(box.width, box.height) // size >= f)
        factors.add(factor)
        left, top, right, bottom = (
            end // factor * factor for end in (box.left, box.top, box.left + box.width, box.top + box.height)
        )
        expected = reference(image, Box(left, top, right - left, bottom - top), size)
        difference = (crop(data, seed, size).float() - expected.float()).abs()
        assert 0 < difference.mean() < 2
    assert {4, 8} <= factors


def test_what_is_random_about_a_crop_is_its_seed() -> None:
    data = encoded(PHOTO, "JPEG")
    assert torch.equal(crop(data, 1), crop(data, 1))
    assert not torch.equal(crop(data, 1), crop(data, 2))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_crops_are_upright(kind: str, orientation: int) -> None:
    """The whole of a square image is the only crop of its size."""
    square = PHOTO.crop((0, 0, 96, 96))
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(square, kind, exif=exif)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    shown = next(s for s in (crop(data, seed, 96, (1.0, 1.0)) for seed in range(50)) if s.shape == (96, 96, 3))
    assert np.abs(shown.numpy().astype(int) - expected).mean() < 12
    turned = [np.asarray(square.transpose(way)) for way in Image.Transpose] + [np.asarray(square)]
    distances = [np.abs(shown.numpy().astype(int) - other).mean() for other in turned]
    nearest = turned[int(np.argmin(distances))]
    assert np.abs(nearest.astype(int) - expected).mean() < 6


def test_boxes_lie_inside_and_cover_the_shares_that_are_asked_for() -> None:
    generator = random.Random(0)  # noqa: S311
    shares = []
    for _ in range(500):
        box = random_box(300, 200, (0.2, 0.6), generator)
        assert 0 <= box.left <= box.left + box.width <= 300
        assert 0 <= box.top <= box.top + box.height <= 200
        assert 0.7 < box.width / box.height < 1.4
        shares.append(box.width * box.height / 60_000)
    assert 0.19 < min(shares) < 0.25
    assert 0.55 < max(shares) < 0.61
    assert random_box(1000, 3, (1.0, 1.0), generator) == Box(498, 0, 4, 3), "where none fits, the middle"


def test_a_damaged_file_is_named() -> None:
    for data in (b"?", encoded(PHOTO, "PNG")[:2000], b"\xff\xd8\xff\xe0\x00\x04ab", encoded(PHOTO, "JPEG")[:300]):
        with pytest.raises(UserError, match=r"^photo: "):
            crop(data, 0)


def test_the_limit_of_pixels_holds_for_crops() -> None:
    for kind in ("JPEG", "PNG"):
        with pytest.raises(UserError, match=r"prepare_data\.max_megapixels"):
            random_crop("a", encoded(PHOTO, kind), size=400, scale=SCALE, seed=0, max_megapixels=0.1)


@pytest.mark.parametrize("mode", ["RGB", "CMYK", "L"])
def test_a_part_of_a_large_image_is_averaged_before_it_is_resized(mode: str) -> None:
    generator = np.random.default_rng(0)
    small = Image.fromarray(generator.integers(0, 256, (30, 40, 3), dtype=np.uint8))
    large = small.resize((2000, 1500), Image.Resampling.BICUBIC).convert(mode)
    buffer = io.BytesIO()
    large.save(buffer, "TIFF")
    data, part = buffer.getvalue(), (100, 50, 1900, 1450)
    found = load_part("large", open_image("large", data), part, 32, 80.0)
    assert found.size[0] < 500, "no full copy"
    exact = large.convert("RGB").crop(part).resize((32, 32), Image.Resampling.BILINEAR)
    difference = np.abs(np.asarray(found.resize((32, 32), Image.Resampling.BILINEAR), float) - np.asarray(exact, float))
    assert difference.mean() < 1.0
    assert difference.max() < 12
