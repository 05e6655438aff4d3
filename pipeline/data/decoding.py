"""One image file's bytes to an RGB array."""

import io
import struct
import warnings

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from pipeline.core.errors import UserError
from pipeline.data.image_kinds import HEAD, how_to_open, openable_formats

EIGHT_BIT_MODES = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr"})


def decode_image(name: str, data: bytes) -> NDArray[np.uint8]:
    """Return the image in ``data`` as RGB of shape (H, W, 3).

    Grey, palette and CMYK images are converted to RGB; transparency is dropped; of an animation the first frame counts;
    an orientation noted by a camera is applied; colours of 16 bits are cut to 8, as Pillow reads them.

    Raises:
        UserError: ``data`` is no image, truncated, far too large, or of 16-bit grey or float values; names the file.
    """
    help_text = how_to_open(data[:HEAD])
    if help_text is not None:
        raise UserError(f"{name}: {help_text}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(data), formats=openable_formats())
            if image.mode not in EIGHT_BIT_MODES:
                raise UserError(f"{name}: image mode {image.mode!r} has no 8-bit form; convert it to 8 bits a channel")
            return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    except UnidentifiedImageError as error:
        raise UserError(f"{name}: not an image of a known format; repair or remove the file") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UserError(f"{name}: not a readable image ({error}); repair or remove the file") from error
    except (OSError, SyntaxError, ValueError, struct.error) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{name}: damaged or truncated image ({error}); repair or remove the file") from error


def central_square(image: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Return (size, size, 3): the shorter side resized to ``size`` (bicubic, antialiased), then the centre cut out."""
    return covering(image, (size, size))


def covering(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Return ``image`` resized (bicubic, antialiased) until it covers ``size`` (H, W), then the centre cut out."""
    picture = Image.fromarray(image)
    height, width = size
    scale = max(width / picture.width, height / picture.height)
    grown = max(width, round(picture.width * scale)), max(height, round(picture.height * scale))
    if grown != picture.size:
        picture = picture.resize(grown, Image.Resampling.BICUBIC)
    left, top = (grown[0] - width) // 2, (grown[1] - height) // 2
    return np.asarray(picture)[top : top + height, left : left + width]
