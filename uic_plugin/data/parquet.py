"""Parquet folders as Hugging Face `datasets` writes them: encoded images, optionally classes.

Needs `pip install "uic-plugin[datasets]"`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from uic_plugin.data.listed import ListedImages, decode

_SPLIT = re.compile(r"(train|test|validation|valid|val|dev)(?=[-_.])")
_LABEL_COLUMNS = ("label", "labels", "fine_label")  # the first one present is used


class ParquetImages(ListedImages):
    """Images of all Parquet files of a folder, in the order of the file names.

    Args:
        root: the folder.
        transform, with_number: see `ListedImages`.
        labelled: whether to use classes.

    Attributes:
        classes: names of the classes, empty if the files have none.

    Raises:
        FileNotFoundError: if there are no Parquet files.
        ValueError: if they contain no images.
        ImportError: without `datasets`.
    """

    names_are_paths = False

    def __init__(
        self,
        root: Path,
        transform: Callable[[Image.Image], Any],
        *,
        labelled: bool = True,
        with_number: bool = False,
    ) -> None:
        super().__init__(root, transform, with_number=with_number)
        self._table, self._column, label = _open(root)
        self.classes: list[str] = []
        self.targets = np.full(len(self._table), -1, np.int8)
        if label is not None and labelled:
            values = np.asarray(self._table.data.column(label).to_numpy())
            names = getattr(self._table.features[label], "names", None)
            if values.dtype.kind not in "iu":
                raise ValueError(f"{root}: column {label!r} holds {values.dtype}, not classes")
            self.targets = values.astype(np.int64)
            self.classes = names or [str(c) for c in range(int(values.max()) + 1)]
        self.fingerprint = _fingerprint(root, len(self._table))

    def load(self, number: int) -> Image.Image:
        """Return an image, decoded, RGB.

        Raises:
            OSError: if the row has no image, or one that cannot be read.
        """
        cell = self._table[int(number)][self._column] or {}
        content = cell.get("bytes")
        if content is None:  # the files name images beside them
            name = str(cell.get("path") or "")
            if not name or Path(name).is_absolute() or ".." in Path(name).parts:
                raise OSError(f"{self.name(number)} has no image ({name!r})")
            return decode(self.root / name)
        return decode(content)

    def name(self, number: int) -> str:
        """Return the row's index; rows have no unique names."""
        return f"row {number} of {self.root}"


def parquet_files(root: Path) -> list[Path]:
    """Return the Parquet files of a folder and its subfolders, sorted."""
    return sorted(root.rglob("*.parquet"))


def _open(root: Path) -> tuple[Any, str, str | None]:
    """Return the rows, the name of the image column, and that of the class column or None."""
    try:
        import datasets
    except ImportError as error:
        raise ImportError(
            'data.format=parquet needs Hugging Face datasets: pip install "uic-plugin[datasets]"'
        ) from error
    files = parquet_files(root)
    if not files:
        raise FileNotFoundError(f"{root}: no .parquet files there")
    splits = sorted({found[0] for f in files if (found := _SPLIT.match(f.name))})
    if len(splits) > 1:
        raise ValueError(
            f"{root} holds files of several splits ({', '.join(splits)}): put each into a folder "
            f"of its own"
        )
    datasets.disable_progress_bars()
    try:
        table = datasets.Dataset.from_parquet([str(path) for path in files])
    except Exception as error:  # datasets and pyarrow raise many kinds for a damaged file
        raise ValueError(f"{root}: its Parquet files cannot be read ({error})") from error
    for name, feature in table.features.items():
        is_image = isinstance(feature, datasets.Image)
        if is_image or (isinstance(feature, dict) and "bytes" in feature):
            if is_image:  # decoded here, where a bad image is known by its row
                table = table.cast_column(name, datasets.Image(decode=False))
            label = next((c for c in _LABEL_COLUMNS if c in table.features), None)
            return table, name, label
    raise ValueError(f"{root}: no column of images among {', '.join(table.features)}")


def _fingerprint(root: Path, rows: int) -> str:
    digest = hashlib.blake2b(str(rows).encode(), digest_size=8)
    for path in parquet_files(root):
        name = path.relative_to(root).as_posix()
        digest.update(f"\0{name}\0{path.stat().st_size}".encode(errors="surrogateescape"))
    return digest.hexdigest()
