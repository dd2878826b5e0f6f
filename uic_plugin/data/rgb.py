"""Images of any kind as RGB of 8 bits."""

from __future__ import annotations

import numpy as np
from PIL import Image

_DEEP = ("I", "I;16", "I;16L", "I;16B", "I;16N")  # grey of 16 bits; "I" in older Pillows


def as_rgb(image: Image.Image) -> Image.Image:
    """Return an image as RGB.

    Grey of 16 bits keeps its upper 8: Pillow's own conversion cuts it off at 255, so that an X-ray
    or a micrograph becomes white.
    """
    if image.mode in _DEEP:
        values = np.asarray(image)
        if values.max(initial=0) > 255 or image.mode != "I":
            image = Image.fromarray((values.clip(0, 65535) >> 8).astype(np.uint8))
    return image.convert("RGB")
