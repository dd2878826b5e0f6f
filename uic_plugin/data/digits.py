"""scikit-learn's handwritten digits as a tree of image folders: real images, no download.

1,797 grey images of 8x8 pixels by 43 people (UCI ML repository, test set of "Optical Recognition
of Handwritten Digits"); every fifth image of each class is kept for evaluation.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from uic_plugin.data.tree import write_tree

_MARK = "digits 1"


def prepare_digits(root: Path) -> Path:
    """Write `root/{train,val}/<digit>/<number>.png` unless it is there, and return `root`."""

    def fill(folder: Path) -> None:
        from sklearn.datasets import load_digits

        digits = load_digits()
        pixels = np.rint(digits.images * (255 / 16)).astype(np.uint8)  # 17 grey levels
        for digit in range(10):
            for rank, number in enumerate(np.flatnonzero(digits.target == digit)):
                split = "val" if rank % 5 == 4 else "train"
                path = folder / split / str(digit) / f"{number:04d}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels[number]).save(path)

    return write_tree(root, _MARK, fill)
