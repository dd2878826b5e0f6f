"""Images that are found by a list, not by walking through folders: an index file, Parquet files."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch.utils.data import Dataset


class ListedImages(Dataset[Any]):
    """Items (view, class), or (number, view, class) as the host's training datasets have them.

    Args:
        root: where the images are.
        transform: an image to what a batch is made of.
        with_number: whether an item begins with its number.

    Attributes:
        targets: (N,) classes by people, -1 where there are none.
        fingerprint: identifies the list of images and their order.
        names_are_paths: whether an image is a file of its own.
    """

    targets: np.ndarray
    fingerprint: str
    names_are_paths = True

    def __init__(
        self, root: Path, transform: Callable[[Any], Any], *, with_number: bool = False
    ) -> None:
        self.root, self.transform, self.with_number = root, transform, with_number

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, number: int) -> Any:
        item = (self.transform(self.load(number)), int(self.targets[number]))
        return (number, *item) if self.with_number else item

    def load(self, number: int) -> Image.Image:
        """Return an image, decoded, RGB."""
        raise NotImplementedError

    def name(self, number: int) -> str:
        """Return the name of an image below the root, with forward slashes."""
        raise NotImplementedError

    def names(self) -> list[str] | None:
        """Return the paths of all images below the root, or None if they are not files."""
        return None


def decode(file: str | Path | bytes) -> Image.Image:
    """Return an image file, or its content, as RGB."""
    with Image.open(io.BytesIO(file) if isinstance(file, bytes) else file) as image:
        return image.convert("RGB")
