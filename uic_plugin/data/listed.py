"""Images of a list, which need no walk through folders: an index file, Parquet files."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch.utils.data import Dataset

from uic_plugin.data.rgb import as_rgb


class FlatImages(Dataset[Any]):
    """The images of a folder without class folders: items (index, view, -1).

    The host's own reader of such a folder neither turns photographs upright nor knows grey of more
    than 8 bits.

    Args:
        root: the folder.
        transform: an RGB image to a view.

    Attributes:
        images: names of all files in the folder, in the order of the file system.
    """

    def __init__(self, root: Path, transform: Callable[[Image.Image], Any]) -> None:
        self.root, self.transform = root, transform
        self.images = os.listdir(root)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, number: int) -> tuple[int, Any, int]:
        return number, self.transform(decode(self.root / self.images[number])), -1


class ListedImages(Dataset[Any]):
    """Items (view, class), or (index, view, class) as in the host's training datasets.

    Args:
        root: the folder of the images.
        transform: an RGB image to a view.
        with_number: whether an item begins with its index.

    Attributes:
        targets: (N,) annotated classes, -1 without annotations.
        fingerprint: identifies the list of images and their order.
        names_are_paths: whether each image is a file.
    """

    targets: np.ndarray
    fingerprint: str
    names_are_paths = True

    def __init__(
        self, root: Path, transform: Callable[[Image.Image], Any], *, with_number: bool = False
    ) -> None:
        self.root, self.transform, self.with_number = root, transform, with_number

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, number: int) -> tuple[Any, ...]:
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


@contextmanager
def opened(file: str | Path | bytes) -> Iterator[Image.Image]:
    """Open an image file, or its content; an error about what is in it is an `OSError`.

    Pillow raises a plain `ValueError` for some damaged files (a header cut off, a text of many
    megabytes), as transforms do for reasons of their own.

    Raises:
        OSError: if it cannot be read. Pillow has further ones, see `BAD_IMAGE_ERRORS`.
    """
    try:
        with Image.open(io.BytesIO(file) if isinstance(file, bytes) else file) as image:
            yield image
    except ValueError as error:
        raise OSError(str(error)) from error


def decode(file: str | Path | bytes) -> Image.Image:
    """Return an image file, or its content, as RGB; see `opened` for what it raises."""
    with opened(file) as image:
        return as_rgb(image)
