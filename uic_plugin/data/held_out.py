"""Images of held-out classes: a folder with one subfolder per class, or a split's CSV file.

The file has columns `filename` and `label`, as miniImageNet's splits (Ravi and Larochelle, 2017)
have; the images lie in `images/` beside it, or beside it.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torchvision.datasets import ImageFolder

from uic_plugin.data.index import save_index
from uic_plugin.data.listed import ListedImages, decode

_COLUMNS = ["filename", "label"]


def index_of_split(path: Path, out: Path) -> int:
    """Write the index of a split's images, to train on them with `data.index`.

    Args:
        path: of the split's CSV file.
        out: the index.

    Returns:
        Number of images.

    Raises:
        FileNotFoundError: if there is no such file, or an image of it is missing.
        ValueError: for a file that is not a split.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such split file")
    split = SplitImages(path, lambda image: image)
    names = np.asarray(split.names())
    members = (names[split.targets == number] for number in range(len(split.classes)))
    groups = zip(split.classes, members, strict=True)
    return save_index(out, ((name, sorted(group.tolist())) for name, group in groups))


def held_out_images(
    data: Path, transform: Callable[[Image.Image], Any]
) -> ImageFolder | SplitImages:
    """Return a dataset of (view, class) with `classes` and `targets`.

    Raises:
        FileNotFoundError: if there is no such folder or file, or an image of it is missing.
        ValueError: for a file that is not a split, or a folder without class folders.
    """
    if data.is_dir():
        if not any(entry.is_dir() for entry in data.iterdir()):
            raise ValueError(f"{data} has no subfolder per class; a split's .csv file does as well")
        return ImageFolder(str(data), transform, loader=decode)
    if not data.is_file():
        raise FileNotFoundError(f"{data}: there is no such folder of images or .csv file")
    return SplitImages(data, transform)


class SplitImages(ListedImages):
    """Images that a split's CSV file lists.

    Args:
        path: of the file.
        transform: see `ListedImages`.

    Attributes:
        classes: names of the classes, sorted.
    """

    def __init__(self, path: Path, transform: Callable[[Image.Image], Any]) -> None:
        beside = path.parent / "images"
        super().__init__(beside if beside.is_dir() else path.parent, transform)
        try:
            with open(path, newline="", encoding="utf-8-sig") as file:
                rows = list(csv.DictReader(file))
        except (csv.Error, UnicodeError) as error:
            raise ValueError(f"{path} is no CSV file ({error})") from error
        if not rows:
            raise ValueError(f"{path} lists no image")
        if any(row.get(column) in (None, "") for row in rows for column in _COLUMNS):
            raise ValueError(f"{path} needs the columns {' and '.join(_COLUMNS)} in every row")
        self._names = [row["filename"] for row in rows]
        outside = [n for n in self._names if n.startswith("/") or ".." in n.split("/")]
        if outside:
            raise ValueError(f"{path}: {outside[0]!r} lies outside of the images' folder")
        if len(set(self._names)) < len(self._names):
            twice = next(n for n, times in Counter(self._names).items() if times > 1)
            raise ValueError(f"{path} lists {twice!r} twice: leave one of the rows out")
        missing = [name for name in self._names if not (self.root / name).is_file()]
        if missing:
            raise FileNotFoundError(
                f"{len(missing)} of the {len(rows)} images of {path} are not in {self.root}, as "
                f"{missing[0]!r}"
            )
        self.classes = sorted({row["label"] for row in rows})
        number = {name: i for i, name in enumerate(self.classes)}
        self.targets = np.asarray([number[row["label"]] for row in rows])
        self.fingerprint = ""

    def load(self, number: int) -> Image.Image:
        """Return an image, decoded, RGB."""
        return decode(self.root / self._names[number])

    def name(self, number: int) -> str:
        """Return its path below the images' folder."""
        return self._names[number]

    def names(self) -> list[str]:
        """Return all paths below the images' folder."""
        return self._names
