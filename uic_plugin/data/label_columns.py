"""Columns of label files: how they are read, and which of them the program itself knows.

A column that it does not know is kept as it is: as text from a CSV file, as its own type from a
Parquet file.
"""

from __future__ import annotations

import contextlib
import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

MARKS = ("wrong", "hidden")  # 0 or 1
_SCORES = ("second_confidence", "agreement", "distance")
_CLASSES = ("second", "source_label")  # and those of the heads, head_0, ...
_HEAD = "head_"
_MARK_OF = {"": 0, "0": 0, "1": 1, "0.0": 0, "1.0": 1, "false": 0, "true": 1, "nan": 0, "none": 0}
Column = Sequence[object] | np.ndarray


def read_csv_columns(path: Path) -> dict[str, Column]:
    """Read the columns of a CSV file as text.

    Raises:
        ValueError: if it is none, or its rows have different numbers of columns.
    """
    try:
        with open(path, newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
            reader = csv.reader(file)
            header = next(reader, [])
            rows = [row for row in reader if row]
    except (csv.Error, ValueError) as error:
        raise ValueError(f"{path} is no CSV file ({error})") from error
    if any(len(row) != len(header) for row in rows):
        raise ValueError(f"{path}: not every row has the {len(header)} columns of the first")
    values: list[tuple[str, ...]] = list(zip(*rows, strict=True)) or [()] * len(header)
    return dict(zip(header, values, strict=True))


def read_parquet_columns(path: Path) -> dict[str, Column]:
    """Read the columns of a Parquet file.

    Raises:
        ValueError: if it is none.
        ImportError: without pyarrow.
    """
    arrow = import_pyarrow()
    try:
        table = arrow.parquet.read_table(str(path))
    except (arrow.ArrowException, OSError) as error:
        raise ValueError(f"{path} is no Parquet file ({str(error).splitlines()[0]})") from error
    return {
        name: _as_written(arrow, table[name])
        if name == "path" or not _is_known(name)
        else table[name].to_numpy()
        for name in table.column_names
    }


def further_column(name: str, values: Column, source: Path) -> np.ndarray:
    """Return a column beside path, label, confidence and entropy, (N,).

    Names are text as objects; classes int64, scores float32, where they are numbers; marks int64,
    0 or 1. All else is as it was read.

    Args:
        name: of the column.
        values: N values, as read from a file.
        source: the file, for errors.

    Raises:
        ValueError: for a mark that is neither.
    """
    if name in MARKS:
        return _marks(name, values, source)
    if name == "name":
        values = ["" if value is None else str(value) for value in values]
    elif _is_class(name) and np.asarray(values).dtype.kind != "f":
        return _converted(values, np.int64)
    elif name in _SCORES:
        return _converted(values, np.float32)
    return _own(values)


def parquet_column(values: Column) -> Column:
    """Return a column as pyarrow is to write it: Python's objects in a list, where NaN stays."""
    if isinstance(values, np.ndarray) and values.dtype.kind == "O":
        objects: list[object] = values.tolist()
        return objects
    return values


def import_pyarrow() -> Any:
    """Return pyarrow with its module for Parquet files.

    Raises:
        ImportError: if it is missing.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ImportError(
            "Parquet needs pyarrow, which this plugin is installed with: pip install pyarrow, or "
            "write a .csv"
        ) from error
    return pyarrow


def _is_class(name: str) -> bool:
    return name in _CLASSES or name.startswith(_HEAD)


def _is_known(name: str) -> bool:
    """Tell whether the program itself reads a column, and so needs it as numbers."""
    own = ("label", "confidence", "entropy", *MARKS, *_SCORES)
    return name in own or _is_class(name)


def _as_written(arrow: Any, column: Any) -> Column:
    """Return an Arrow column so that writing it gives the same values again."""
    if column.null_count == 0 and _is_of_numpy(arrow, column.type):
        values: np.ndarray = column.to_numpy()
        return values
    objects: list[object] = []
    if getattr(column.type, "unit", "") != "ns":  # which Python's own times do not have
        with contextlib.suppress(ValueError, OverflowError):  # a year out of their range
            objects = column.to_pylist()
    return objects or [value if value.is_valid else None for value in column]


def _is_of_numpy(arrow: Any, kind: Any) -> bool:
    """Tell whether numpy has an Arrow type as it is, with its unit and range."""
    types = arrow.types
    checks = (types.is_integer, types.is_floating, types.is_boolean, types.is_date)
    is_time = types.is_duration(kind) or (types.is_timestamp(kind) and kind.tz is None)
    return is_time or any(check(kind) for check in checks)


def _own(values: Column) -> np.ndarray:
    """Return a column as it was read; lists stay objects, whatever is in them."""
    if isinstance(values, np.ndarray):
        return values
    return np.fromiter(values, object, len(values))


def _converted(values: Column, kind: type[np.generic]) -> np.ndarray:
    """Return a column as numbers; as it was read where it holds none."""
    try:
        return np.asarray(values).astype(kind)
    except (TypeError, ValueError, OverflowError):
        return _own(values)


def _marks(name: str, values: Column, source: Path) -> np.ndarray:
    """Return marks as 0 and 1, (N,) int64, however another program has written them."""
    column = np.asarray(values)
    if column.dtype.kind in "biu" and np.isin(column, (0, 1)).all():
        return column.astype(np.int64)
    marks = [_MARK_OF.get(str(value).strip().lower()) for value in column.tolist()]
    if None in marks:
        wrong = column.tolist()[marks.index(None)]
        raise ValueError(
            f"{source}: column {name} holds {wrong!r}: write 1 for marked images and 0 for others "
            f"(True and False do, too; empty is 0)"
        )
    return np.asarray(marks, np.int64)
