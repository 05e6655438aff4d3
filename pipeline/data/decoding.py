"""One image file's bytes to an RGB array; only what the output needs is decoded."""

import contextlib
import io
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import BinaryIO, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, PngImagePlugin, UnidentifiedImageError

from pipeline.core.errors import UserError
from pipeline.data.image_kinds import HEAD, how_to_open, image_format
from pipeline.data.letterbox import letterboxed_size, padded, scaled_to_fit

Image.MAX_IMAGE_PIXELS = None  # the limit is checked here, from the header, and is the user's to set
PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY = 64 * 2**20  # editors write profiles and text of MB

MAX_MEGAPIXELS = 80.0
"""Millions of pixels of an image that are decoded where nothing else is said; each takes 4 to 10 bytes meanwhile."""
EIGHT_BIT_MODES = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr"})
AVERAGED_MODES = frozenset({"L", "LA", "RGB", "RGBA", "CMYK", "YCbCr"})
"""Of which neighbouring pixels can be averaged; a palette has numbers, not colours."""
SIXTEEN_BIT_MODES = frozenset({"I;16", "I;16B", "I;16L", "I;16N"})
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What undoes each orientation that a camera notes (EXIF 2.3, tag 0x0112)."""
ORIENTATION = 0x0112
SIDEWAYS = 5
"""From this orientation on, width and height change places."""

REDUCED_FROM = 2_000_000
"""Pixels from which a JPEG file is decoded at a reduced scale; smaller ones keep each bit, and cost little."""
REDUCIBLE = frozenset({"JPEG", "MPO"})
"""Pillow's names of JPEG files; MPO: those of several images, of phones."""
OVERSAMPLING = 3
"""A reduced image still has this many times the pixels, along each side, of what it is resized to."""
STRIP = 4
"""An image longer than this, relative to the output, is cut before it is resized, not after."""


Resize = Literal["central_square", "letterbox"]
"""How images are brought to a size."""


class TooManyPixelsError(UserError):
    """An image has more pixels than are decoded."""

    def __init__(self, message: str, size: tuple[int, int]) -> None:
        super().__init__(message)
        self.size = size
        """Width and height."""


class Shown(NamedTuple):
    """An image that was decoded."""

    pixels: NDArray[np.uint8]
    """RGB, (H, W, 3)."""
    size: tuple[int, int]
    """Height and width of the whole image as it is shown, in its own pixels."""


def decode_image(
    name: str,
    data: bytes,
    size: tuple[int, int] | None = None,
    max_megapixels: float = MAX_MEGAPIXELS,
    *,
    how: Resize = "central_square",
) -> NDArray[np.uint8]:
    """Return the image in ``data`` as RGB of shape (H, W, 3), as ``decode_shown`` does."""
    return decode_shown(name, data, size, max_megapixels, how=how).pixels


def decode_shown(
    name: str,
    data: bytes,
    size: tuple[int, int] | None = None,
    max_megapixels: float = MAX_MEGAPIXELS,
    *,
    how: Resize = "central_square",
) -> Shown:
    """Return the image in ``data``, and how large it is.

    Grey, palette and CMYK images are converted to RGB; transparency is dropped; of an animation the first frame counts;
    an orientation noted by a camera is applied; values of 16 bits are cut to their upper 8.

    Args:
        size: (H, W) that the image is brought to; a large JPEG file is then decoded at a reduced scale. None leaves the
            image as it is.
        max_megapixels: largest number of pixels to decode, in millions.
        how: ``central_square``: resized (bicubic, antialiased) to cover ``size``, then the centre cut out;
            ``letterbox``: see ``pipeline.data.letterbox``.

    Raises:
        UserError: ``data`` is no image of a known format, damaged, too large, or of values of more than 16 bits; names
            the file.
    """
    image = open_image(name, data)
    factor = 1 if size is None else _reduction(image, size, how)
    if size is None or factor == 1:
        whole = load_upright(name, image, max_megapixels)
        pixels = np.asarray(whole if size is None else _WAYS[how].resize(whole, size))
        return Shown(pixels if size is None else padded(pixels, size), (whole.height, whole.width))
    width, height = image.size
    turned = orientation(image)
    _decode(name, image, max_megapixels, factor)  # its last column and row may be parts of pixels
    upright = turned < SIDEWAYS
    turned_size, extent = size if upright else size[::-1], (width / factor, height / factor)
    small = _turn(_WAYS[how].resize(_as_rgb(name, image), turned_size, extent), turned)
    return Shown(padded(np.asarray(small), size), (height, width) if upright else (width, height))


def open_image(name: str, data: bytes | BinaryIO) -> ImageFile.ImageFile:
    """Return the image in ``data``, its bytes or its open file, of which only the header has been read.

    Raises:
        UserError: as for ``decode_image``.
    """
    stream = io.BytesIO(data) if isinstance(data, bytes) else data
    head = stream.read(HEAD)
    stream.seek(0)
    kind = image_format(head)
    if not head:
        raise UserError(f"{name}: the file is empty; repair or remove it")
    if kind is None:
        raise UserError(f"{name}: not an image of a known format; repair or remove the file")
    if (help_with := how_to_open(head)) is not None:
        raise UserError(f"{name}: {help_with}")
    with _decoding(name):
        image = Image.open(stream, formats=(kind,))
    is_grey16 = image.mode in SIXTEEN_BIT_MODES or (image.mode == "I" and image.format == "PPM")
    if not is_grey16 and image.mode not in EIGHT_BIT_MODES:
        raise UserError(
            f"{name}: values of Pillow's mode {image.mode!r} have no known range; convert it to 8 or 16 bits a channel"
        )
    return image


def orientation(image: ImageFile.ImageFile) -> int:
    """Return how a camera says that ``image`` was held, 1 to 8; 1, upright, where that says nothing readable.

    Of other formats than JPEG it is known when the image is loaded.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            found = image.getexif().get(ORIENTATION, 1)
            known = found in UPRIGHT
        except Exception:  # noqa: BLE001  (the parser of a damaged note raises anything, and the image may be intact)
            return 1
    return int(found) if known else 1


def load_upright(name: str, image: ImageFile.ImageFile, max_megapixels: float) -> Image.Image:
    """Return ``image`` decoded, upright and as RGB.

    Raises:
        UserError: it is damaged or too large; names the file.
    """
    _decode(name, image, max_megapixels, factor=1)
    return _turn(_as_rgb(name, image), orientation(image))


def size_in_head(image: ImageFile.ImageFile) -> tuple[int, int] | None:
    """Return height and width of ``image`` as it is shown; None where only decoding tells, as of most formats."""
    return _shown_size(image) if image.format in REDUCIBLE else None


def load_reduced(
    name: str, image: ImageFile.ImageFile, wanted: tuple[int, int], max_megapixels: float
) -> tuple[Image.Image, int]:
    """Return ``image`` upright and as RGB, decoded at the part 1 / factor of each side, and factor.

    It is above 1 of large JPEG files; the last columns and rows may then be parts of pixels.

    Args:
        wanted: width and height that the image, as it is shown, is to be resized to; pixels to spare are left.

    Raises:
        UserError: as for ``load_upright``.
    """
    turned = orientation(image)
    factor = _spare_factor(_shown_size(image), wanted) if _is_reducible(image) else 1
    while turned in UPRIGHT and (image.width % factor or image.height % factor):  # parts of pixels must stay last
        factor //= 2
    _decode(name, image, max_megapixels, factor)
    return _turn(_as_rgb(name, image), turned), factor


def load_part(
    name: str, image: ImageFile.ImageFile, part: tuple[int, int, int, int], size: int, max_megapixels: float
) -> Image.Image:
    """Return a part of ``image``, to be resized to ``size`` pixels a side, upright and as RGB; ``image`` is closed.

    What is large is averaged over whole pixels first: each copy of it would take hundreds of MB.

    Args:
        part: left, top, right and bottom, in the file's columns and rows.

    Raises:
        UserError: as for ``load_upright``.
    """
    _decode(name, image, max_megapixels, factor=1)
    turned, sides = orientation(image), (part[2] - part[0], part[3] - part[1])
    factor = 1
    if image.mode in AVERAGED_MODES and sides[0] * sides[1] >= REDUCED_FROM:
        factor = largest_factor(sides, (OVERSAMPLING * size,) * 2)
    wanted = image.crop(part) if factor == 1 else image.reduce(factor, box=part)
    image.close()
    return _turn(_as_rgb(name, wanted), turned)


def _turn(picture: Image.Image, turned: int) -> Image.Image:
    return picture.transpose(UPRIGHT[turned]) if turned in UPRIGHT else picture


def _decode(name: str, image: ImageFile.ImageFile, max_megapixels: float, factor: int) -> None:
    """Decode ``image`` at the part 1 / ``factor`` of each side."""
    _check_size(name, image, factor, max_megapixels)
    with _decoding(name):
        if factor > 1:
            image.draft(None, (image.width // factor, image.height // factor))
        image.load()


def _as_rgb(name: str, picture: Image.Image) -> Image.Image:
    if picture.mode not in EIGHT_BIT_MODES:
        picture = _upper_bits(picture)
    with _decoding(name):
        return picture if picture.mode == "RGB" else picture.convert("RGB")


def _check_size(name: str, image: ImageFile.ImageFile, factor: int, max_megapixels: float) -> None:
    """Raise UserError where decoding ``image``, at the part 1 / ``factor`` of each side, takes too many pixels."""
    width, height = image.size
    if counted_pixels(width, height, 1 if image.info.get("progressive") else factor) > max_megapixels * 1e6:
        raise TooManyPixelsError(
            f"{name}: has {width} x {height} pixels, allowed are {max_megapixels:g} million "
            "(prepare_data.max_megapixels); raise that where memory allows, or scale the image down",
            (width, height),
        )


def counted_pixels(width: int, height: int, factor: int) -> float:
    """Return as how many pixels an image counts that is decoded at the part 1 / ``factor`` of each side.

    Rows are read one after another, so that reducing saves memory; it saves less of the time. Of a progressive file the
    coefficients of all pixels are held: its factor counts as 1.
    """
    return width * height / factor


def _upper_bits(image: Image.Image) -> Image.Image:
    """Return grey ``image`` of 16 bits with the upper 8 of each value, as Pillow reads colours of 16 bits."""
    return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))


@contextlib.contextmanager
def _decoding(name: str) -> Iterator[None]:
    """Turn whatever a decoder raises at a damaged file into a UserError that names the file; silence its warnings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        except UnidentifiedImageError as error:  # its text is the address of the buffer
            raise UserError(f"{name}: damaged image, its header cannot be read; repair or remove the file") from error
        except MemoryError:  # no fault of the file, which must not be left out for it
            raise
        except Exception as error:
            why = " ".join(str(error).split()) or type(error).__name__
            raise UserError(f"{name}: damaged or truncated image ({why}); repair or remove the file") from error


def _reduction(image: ImageFile.ImageFile, size: tuple[int, int], how: Resize) -> int:
    """Return the factor by which ``image`` can be reduced before it is brought to ``size``, with pixels to spare."""
    if not _is_reducible(image):
        return 1
    height, width = _shown_size(image)
    return _spare_factor((height, width), _WAYS[how].sides((width, height), size))


def _is_reducible(image: ImageFile.ImageFile) -> bool:
    return image.format in REDUCIBLE and image.width * image.height >= REDUCED_FROM


def _shown_size(image: ImageFile.ImageFile) -> tuple[int, int]:
    """Return height and width of a JPEG ``image``, of which only the header has been read, as it is shown."""
    return (image.height, image.width) if orientation(image) < SIDEWAYS else (image.width, image.height)


def _spare_factor(shown: tuple[int, int], wanted: tuple[int, int]) -> int:
    """Return the factor for an image of the size ``shown`` (h, w) that is resized to ``wanted`` (width, height)."""
    return largest_factor(shown[::-1], (OVERSAMPLING * wanted[0], OVERSAMPLING * wanted[1]))


def largest_factor(sides: tuple[int, int], needed: tuple[int, int]) -> int:
    """Return the largest of 8, 4, 2 and 1 that leaves ``sides`` at least as long as ``needed``."""
    spare = min(side // need for side, need in zip(sides, needed, strict=True))
    return next(factor for factor in (8, 4, 2, 1) if factor <= max(1, spare))


def brought_to(image: NDArray[np.uint8], size: tuple[int, int], *, how: Resize) -> NDArray[np.uint8]:
    """Return the RGB ``image`` (h, w, 3), brought to ``size`` (H, W) as ``decode_shown`` does."""
    return padded(np.asarray(_WAYS[how].resize(Image.fromarray(image), size)), size)


def central_square(image: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Return (size, size, 3): the shorter side resized to ``size`` (bicubic, antialiased), then the centre cut out."""
    return brought_to(image, (size, size), how="central_square")


def _grown(sides: tuple[float, float], size: tuple[int, int]) -> tuple[int, int]:
    """Return width and height of an image of ``sides`` (width, height) scaled to cover ``size`` (H, W)."""
    height, width = size
    scale = max(width / sides[0], height / sides[1])
    return max(width, round(sides[0] * scale)), max(height, round(sides[1] * scale))


def _covering(picture: Image.Image, size: tuple[int, int], extent: tuple[float, float] | None = None) -> Image.Image:
    """Return ``picture`` resized (bicubic, antialiased) until it covers ``size`` (H, W), then the centre cut out.

    ``extent`` is how many of its columns and rows show the image; None: all.
    """
    height, width = size
    across, down = extent or picture.size
    grown = _grown((across, down), size)
    left, top = (grown[0] - width) // 2, (grown[1] - height) // 2
    if grown[0] * grown[1] > STRIP * width * height:
        wide, high = across / grown[0], down / grown[1]
        box = left * wide, top * high, (left + width) * wide, (top + height) * high
        return picture.resize((width, height), Image.Resampling.BICUBIC, box=box)
    if grown != picture.size:
        picture = picture.resize(grown, Image.Resampling.BICUBIC, box=(0, 0, across, down))
    return picture.crop((left, top, left + width, top + height))


def _inside(sides: tuple[float, float], size: tuple[int, int]) -> tuple[int, int]:
    """Return width and height of an image of ``sides`` (width, height) scaled to fit into ``size`` (H, W)."""
    height, width = letterboxed_size(sides[::-1], size)
    return width, height


class _Way(NamedTuple):
    """How images are brought to a size."""

    resize: Callable[..., Image.Image]
    """From a picture, (H, W) and how many of its columns and rows show the image (None: all) to at most that size."""
    sides: Callable[[tuple[float, float], tuple[int, int]], tuple[int, int]]
    """From width and height of an image and (H, W) to its width and height once it is scaled."""


_WAYS: Mapping[str, _Way] = {
    "central_square": _Way(_covering, _grown),
    "letterbox": _Way(scaled_to_fit, _inside),
}
