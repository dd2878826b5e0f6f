"""Images of any kind as upright RGB of 8 bits."""

from __future__ import annotations

import struct

import numpy as np
from PIL import ExifTags, Image, ImageOps

_WHOLE = ("I", "I;16", "I;16L", "I;16B", "I;16N")  # grey of more than 8 bits; "I" in older Pillows
# what Pillow raises for metadata that is damaged, in a file whose pixels may be whole
_BAD_METADATA = (SyntaxError, ValueError, TypeError, KeyError, OSError, EOFError, struct.error)


def as_rgb(image: Image.Image) -> Image.Image:
    """Return an image as RGB, as a viewer shows it.

    Telephones store photographs as the sensor saw them and note which side is up: see `upright`.
    Grey of more than 8 bits is scaled, see `_as_bytes`: Pillow's own conversion cuts it off at 255,
    so that an X-ray or a micrograph becomes white.
    """
    image = upright(image)
    if image.mode in _WHOLE or image.mode == "F":
        image = Image.fromarray(_as_bytes(np.asarray(image)))
    return image.convert("RGB")


def upright(image: Image.Image) -> Image.Image:
    """Return an image turned as its EXIF orientation says, or the same image if nothing is to do.

    Metadata that cannot be read says nothing. The result has no orientation, so that a second call
    turns nothing.
    """
    try:
        if image.getexif().get(ExifTags.Base.Orientation, 1) in range(2, 9):
            return ImageOps.exif_transpose(image)
    except _BAD_METADATA:
        pass
    return image


def _as_bytes(values: np.ndarray) -> np.ndarray:
    """Return grey values as 8 bits.

    Whole numbers count as of 8, 12 or 16 bits by the largest one, of which the upper 8 are kept;
    fractions between 0 and 1 are multiplied by 255, those up to 255 are rounded. Anything else, as
    negative or larger values, is stretched from its least to its largest finite value.
    """
    values = np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)
    low, high = float(values.min()), float(values.max())
    if low < 0 or high > 65535 or (values.dtype.kind == "f" and high > 255):
        scaled = (values.astype(np.float64) - low) * (255 / max(high - low, 1e-12))
        return scaled.round().astype(np.uint8)
    if values.dtype.kind == "f":
        return (values * (255 if high <= 1 else 1)).round().astype(np.uint8)
    shift = 0 if high <= 255 else 4 if high <= 4095 else 8
    return (values.astype(np.int64) >> shift).astype(np.uint8)
