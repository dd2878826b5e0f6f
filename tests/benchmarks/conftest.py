"""What several benchmarks measure with."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(scope="module")
def photos_of(tmp_path_factory):
    """Photographs in class folders: those of the environment's UIC_PHOTOS, or drawn JPEGs."""

    def draw(count, width, height):
        if os.environ.get("UIC_PHOTOS"):
            return Path(os.environ["UIC_PHOTOS"])
        root = tmp_path_factory.mktemp("photos")
        generator = np.random.default_rng(0)
        for number in range(count):
            path = root / str(number % 10) / f"{number:06d}.jpg"
            path.parent.mkdir(exist_ok=True)
            coarse = generator.integers(0, 256, (height // 8, width // 8, 3), np.uint8)
            image = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
            image.save(path, quality=90)
        return root

    return draw
