"""The data of the page's images, as text of script files."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from uic_plugin.data.labels import LabelTable
from uic_plugin.report.classes import folder_annotations
from uic_plugin.report.page.history import History
from uic_plugin.report.page.projection import Projection
from uic_plugin.report.page.sprites import Sprites

_SCORES = ("agreement", "second_confidence", "distance")  # further columns that are numbers
Json = Mapping[str, object]


@dataclass(frozen=True)
class Shown:
    """The images of a label file that the page shows.

    Attributes:
        table: the whole label file.
        rows: (M,) its rows on the page, in the order of the thumbnails.
    """

    table: LabelTable
    rows: np.ndarray

    def paths(self) -> list[str]:
        """Return the M paths below the folder of images."""
        return [self.table.paths[row] for row in self.rows]


def core_data(
    shown: Shown,
    sprites: Sprites,
    *,
    title: str,
    source: str,
    folder: str,
    projection: Projection | None,
    history: History | None,
) -> Json:
    """Collect everything that the page needs when it opens.

    Args:
        shown: the images.
        sprites: their thumbnails.
        title: heading of the page.
        source: name of the label file.
        folder: path from the page to the folder of images, with forward slashes.
        projection: of the features of the M images, or None.
        history: of the classes over a run's epochs, or None.
    """
    table, rows = shown.table, shown.rows
    return {
        "title": title,
        "source": source,
        "folder": folder,
        "fingerprint": table.fingerprint,
        "images": len(table),
        "shown": len(rows),
        "sprites": {"tile": sprites.tile, "side": sprites.side, "suffix": sprites.suffix},
        "unreadable": sprites.unreadable,
        "label": encoded(table.labels[rows], "<i4"),
        **_numbers(shown),
        "rest": _rest(shown),
        "names": {str(c): name for c, name in table.names.items()},
        "hidden": _hidden(table),
        "folders": _folders(shown),
        "map": _map(projection),
        "heads": _heads(table),
        "history": None if history is None else history.as_json(),
    }


def features_data(projection: Projection) -> Json:
    """Collect the components that similar images, neighbours and splits are computed from."""
    return {
        "width": projection.components.shape[1],
        "kept": projection.kept,
        "values": encoded(projection.components, "i1"),
    }


def heads_data(shown: Shown) -> Json:
    """Collect the labels of every head, if a label file has columns `head_0`, ...."""
    return {
        name: encoded(shown.table.extra[name][shown.rows], "<i4") for name in _heads(shown.table)
    }


def encoded(values: np.ndarray, kind: str) -> str:
    """Return an array as base64 of its little-endian bytes."""
    return base64.b64encode(np.ascontiguousarray(values, kind).tobytes()).decode()


def script(name: str, data: object) -> str:
    """Return a script that passes `data` to the page; local pages can load no other files.

    The text is ASCII, and has no `<`, so that no file name can end the script.
    """
    text = json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    return f'UIC.give("{name}",{text});\n'


def relative_folder(page: Path, images: Path) -> str:
    """Return the path from the page's folder to the images', with forward slashes."""
    return os.path.relpath(images.resolve(), page.resolve()).replace(os.sep, "/")


def _numbers(shown: Shown) -> dict[str, object]:
    """Collect columns with one number per image; a column without any number is left out."""
    table, rows = shown.table, shown.rows
    columns = {"confidence": table.confidence, "entropy": table.entropy}
    columns |= {name: table.extra[name] for name in _SCORES if name in table.extra}
    numbers: dict[str, object] = {
        name: encoded(values[rows], "<f4")
        for name, values in columns.items()
        if values.dtype.kind in "if" and np.isfinite(values).any()
    }
    if "second" in table.extra and table.extra["second"].dtype.kind == "i":
        numbers["second"] = encoded(table.extra["second"][rows], "<i4")
    if "wrong" in table.extra:
        numbers["wrong"] = encoded(table.marked("wrong")[rows], "u1")
    return numbers


def _rest(shown: Shown) -> dict[str, list[float]]:
    """Sum up, per class, the images not shown: count, sums of confidence, entropy, agreement."""
    table = shown.table
    if len(shown.rows) == len(table):
        return {}
    absent = np.ones(len(table), bool)
    absent[shown.rows] = False
    labels = table.labels[absent]
    agreement = table.extra.get("agreement", np.full(len(table), np.nan))
    sums = [
        np.bincount(labels, np.nan_to_num(column[absent].astype(np.float64)))
        for column in (np.ones(len(table)), table.confidence, table.entropy, agreement)
    ]
    used = np.flatnonzero(sums[0])
    return {str(c): [round(float(column[c]), 4) for column in sums] for c in used}


def _hidden(table: LabelTable) -> list[int]:
    return [int(c) for c in np.unique(table.labels[table.marked("hidden")])]


def _folders(shown: Shown) -> Json | None:
    numbers = folder_annotations(shown.table.paths)
    if numbers is None:
        return None
    names = sorted({path.rpartition("/")[0] for path in shown.table.paths})
    return {"names": names, "of": encoded(numbers[shown.rows], "<i4")}


def _map(projection: Projection | None) -> Json | None:
    if projection is None:
        return None
    low, high = projection.map.min(0), projection.map.max(0)
    placed = np.clip((projection.map - low) / np.maximum(high - low, 1e-12), 0, 1) * 65535
    return {
        "kind": projection.kind,
        "x": encoded(placed[:, 0], "<u2"),
        "y": encoded(65535 - placed[:, 1], "<u2"),
    }


def _heads(table: LabelTable) -> Sequence[str]:
    return [
        name
        for name, values in table.extra.items()
        if name.startswith("head_") and values.dtype.kind == "i"
    ]
