"""Label files: one row per image with its path, pseudo label, confidence and entropy.

Parquet (needs pyarrow: `pip install "uic-plugin[parquet]"`) or CSV, by the file's ending.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from uic_plugin.files import replacing

COLUMNS = ("path", "label", "confidence", "entropy")
_ENDINGS = (".parquet", ".csv")
_MOST_CLASSES = 1 << 24  # far above what anyone trains; a damaged number would fill the memory


@dataclass(frozen=True)
class LabelTable:
    """Pseudo labels of a list of images.

    Attributes:
        paths: N paths below the images' folder, with forward slashes.
        labels: (N,) int64 pseudo labels.
        confidence: (N,) float32 softmax score of the label, in [0, 1].
        entropy: (N,) float32 entropy of the softmax in nats.
    """

    paths: list[str]
    labels: np.ndarray
    confidence: np.ndarray
    entropy: np.ndarray

    def __len__(self) -> int:
        return len(self.paths)


def check_label_file(path: Path) -> Path:
    """Refuse, before any work is done, a file that could not be written.

    Raises:
        ValueError: for an unknown ending.
        ImportError: if Parquet is asked for and pyarrow is missing.
    """
    if path.suffix not in _ENDINGS:
        raise ValueError(f"{path}: a label file ends in {' or '.join(_ENDINGS)}")
    if path.suffix == ".parquet":
        _pyarrow()
    return path


def write_labels(
    path: Path, table: LabelTable, more: Mapping[str, np.ndarray] | None = None
) -> None:
    """Write a label file through a temporary one.

    Args:
        path: `.parquet` or `.csv`.
        table: its first four columns.
        more: further columns (N,) by name, for people; `read_labels` leaves them out.
    """
    check_label_file(path)
    names = (*COLUMNS, *(more or {}))
    columns = (table.paths, table.labels, table.confidence, table.entropy, *(more or {}).values())
    with replacing(path) as part:
        if path.suffix == ".csv":
            with open(part, "w", newline="", encoding="utf-8", errors="surrogateescape") as file:
                writer = csv.writer(file)
                writer.writerow(names)
                writer.writerows(zip(*columns, strict=True))
        else:
            arrow = _pyarrow()
            arrow.parquet.write_table(
                arrow.table(dict(zip(names, columns, strict=True))), str(part)
            )


def read_labels(path: Path) -> LabelTable:
    """Read a label file; confidence and entropy may be missing and are NaN then.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if it is none, or an image stands in it twice.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such label file")
    check_label_file(path)
    columns = _read_csv(path) if path.suffix == ".csv" else _read_parquet(path)
    missing = [name for name in COLUMNS[:2] if name not in columns]
    if missing:
        raise ValueError(
            f"{path} is no label file: it has no column {missing[0]!r} "
            f"(columns: {', '.join(columns) or 'none'})"
        )
    paths = [str(value) for value in columns["path"]]
    labels = np.asarray(columns["label"])
    try:
        if labels.dtype.kind == "U":
            labels = labels.astype(np.int64)
        elif labels.dtype.kind not in "iu" and len(labels):
            raise ValueError(f"they are {labels.dtype}")
    except ValueError as error:
        raise ValueError(f"{path}: a label is no whole number ({error})") from error
    try:
        numbers = [
            np.asarray(columns.get(name, np.full(len(paths), np.nan)), dtype=np.float32)
            for name in COLUMNS[2:]
        ]
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: a confidence or entropy is no number ({error})") from error
    if len(labels) and (labels.min() < 0 or labels.max() >= _MOST_CLASSES):
        wrong = labels.min() if labels.min() < 0 else labels.max()
        raise ValueError(f"{path}: labels must lie in [0, {_MOST_CLASSES}), found {wrong}")
    outside = [p for p in paths if p.startswith("/") or ".." in p.split("/")]
    if outside:
        raise ValueError(f"{path}: {outside[0]!r} lies outside of the images' folder")
    if len(set(paths)) != len(paths):
        twice = Counter(paths).most_common(1)[0][0]
        raise ValueError(f"{path}: {twice!r} stands in it twice")
    return LabelTable(paths, labels.astype(np.int64), *numbers)


def match_labels(table: LabelTable, paths: Sequence[str], num_classes: int, source: str) -> Any:
    """Labels in the order of a dataset's images, (N,) int64.

    Args:
        table: as read from a file.
        paths: N paths of the dataset's images below its folder.
        num_classes: K; labels must be less.
        source: names the file in errors.

    Raises:
        ValueError: if images have no label or labels have no image, with counts; or for a label
            that is not in [0, K).
    """
    place = {path: number for number, path in enumerate(table.paths)}
    without = [path for path in paths if path not in place]
    unused = len(table) - (len(paths) - len(without))
    if without or unused:
        example = f", as {without[0]!r}" if without else ""
        raise ValueError(
            f"the labels in {source} are of other images: {len(without)} of the {len(paths)} "
            f"images have no label{example}, {unused} of the {len(table)} labels have no image"
        )
    labels = table.labels[np.fromiter((place[path] for path in paths), np.int64, len(paths))]
    if len(labels) and labels.max() >= num_classes:
        raise ValueError(
            f"{source} has label {labels.max()}, this run has {num_classes} pseudo classes: set "
            f"method_kwargs.num_pseudo_classes to the checkpoint's that made the labels"
        )
    return labels


def _read_csv(path: Path) -> dict[str, Any]:
    try:
        with open(path, newline="", encoding="utf-8", errors="surrogateescape") as file:
            reader = csv.reader(file)
            header = next(reader, [])
            rows = [row for row in reader if row]
    except (csv.Error, ValueError) as error:
        raise ValueError(f"{path} is no CSV file ({error})") from error
    if any(len(row) != len(header) for row in rows):
        raise ValueError(f"{path}: not every row has the {len(header)} columns of the first")
    values = list(zip(*rows, strict=True)) or [()] * len(header)
    return dict(zip(header, values, strict=True))


def _read_parquet(path: Path) -> dict[str, Any]:
    arrow = _pyarrow()
    try:
        table = arrow.parquet.read_table(str(path))
    except (arrow.ArrowException, OSError) as error:
        raise ValueError(f"{path} is no Parquet file ({str(error).splitlines()[0]})") from error
    return {
        name: table[name].to_pylist() if name == "path" else table[name].to_numpy()
        for name in table.column_names
    }


def _pyarrow() -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ImportError(
            'Parquet needs pyarrow: pip install "uic-plugin[parquet]", or write a .csv'
        ) from error
    return pyarrow
