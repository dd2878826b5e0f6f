"""Edits made on the page of classes, applied to the label file that they belong to.

A file of edits is JSON: `format` "uic-edits", `version` 1, `labels` with `file`, `images` and
`fingerprint` of the label file, and `edits`, a list that is applied in order:

    {"do": "name",  "class": 3, "name": "church"}            an empty name removes it
    {"do": "merge", "classes": [3, 8], "into": 3}
    {"do": "split", "class": 3, "parts": [{"class": 30, "images": [PATH, ...]}, ...]}
    {"do": "move",  "images": [PATH, ...], "to": 5}          5 may be new
    {"do": "wrong", "images": [PATH, ...], "wrong": true}    false removes the mark
    {"do": "hide",  "class": 4, "hidden": true}
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from uic_plugin.data.labels import MOST_CLASSES, LabelTable

FORMAT, VERSION = "uic-edits", 1
WRONG = ("keep", "second", "drop")
Json = Mapping[str, object]


@dataclass(frozen=True)
class Name:
    """Give a class a name; an empty one removes it."""

    number: int
    name: str

    def apply(self, state: _State) -> None:
        """Apply it."""
        state.names.pop(self.number, None)
        if self.name:
            state.names[self.number] = self.name


@dataclass(frozen=True)
class Merge:
    """Merge classes into one of them, which takes the first name if it has none."""

    classes: list[int]
    into: int

    def apply(self, state: _State) -> None:
        """Apply it."""
        gone = [number for number in self.classes if number != self.into]
        state.labels[np.isin(state.labels, gone)] = self.into
        state.became[np.isin(state.became, gone)] = self.into
        for number in gone:
            name = state.names.pop(number, None)
            if name is not None:
                state.names.setdefault(self.into, name)
            state.hidden.discard(number)


@dataclass(frozen=True)
class Move:
    """Move images into a class, which may be new, and remove their marks as wrong."""

    images: list[str]
    to: int

    def apply(self, state: _State) -> None:
        """Apply it."""
        rows = state.rows(self.images)
        state.labels[rows] = self.to
        state.wrong[rows] = False


@dataclass(frozen=True)
class Split:
    """Move groups of a class's images into new classes; the others stay."""

    parts: list[Move]

    def apply(self, state: _State) -> None:
        """Apply it."""
        for part in self.parts:
            part.apply(state)


@dataclass(frozen=True)
class Wrong:
    """Mark images as wrong in their class, or remove the mark."""

    images: list[str]
    wrong: bool

    def apply(self, state: _State) -> None:
        """Apply it."""
        state.wrong[state.rows(self.images)] = self.wrong


@dataclass(frozen=True)
class Hide:
    """Hide a class, or show it again."""

    number: int
    hidden: bool

    def apply(self, state: _State) -> None:
        """Apply it."""
        if self.hidden:
            state.hidden.add(self.number)
        else:
            state.hidden.discard(self.number)


Edit = Name | Merge | Split | Move | Wrong | Hide


@dataclass(frozen=True)
class Edits:
    """A file of edits.

    Attributes:
        source: name of the label file, for messages.
        images: rows of that label file.
        fingerprint: of that label file, see `LabelTable.fingerprint`.
        edits: the edits, in their order.
    """

    source: str
    images: int
    fingerprint: str
    edits: list[Edit]


@dataclass(frozen=True)
class Applied:
    """A label file after its edits.

    Attributes:
        table: with the columns `name`, `source_label`, `wrong` and `hidden`.
        classes: number of classes.
        moved: number of images whose class has changed, by merges, splits and moves.
        wrong: number of images marked as wrong.
        dropped: number of images left out.
    """

    table: LabelTable
    classes: int
    moved: int
    wrong: int
    dropped: int


def read_edits(path: Path) -> Edits:
    """Read a file of edits, as the page saves it.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if it is no file of edits, or one of its edits is broken.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such file of edits")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is no JSON file ({error})") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ValueError(f"{path} is no file of edits: save one on the page of classes")
    if content.get("version") != VERSION:
        raise ValueError(f"{path} has version {content.get('version')!r}, known is {VERSION}")
    labels, records = content.get("labels"), content.get("edits")
    if not isinstance(labels, dict) or not isinstance(records, list):
        raise ValueError(f"{path} is broken: it needs labels and a list of edits")
    fingerprint, images = labels.get("fingerprint"), labels.get("images")
    if not isinstance(fingerprint, str) or type(images) is not int:
        raise ValueError(f"{path} is broken: it does not say which label file it is of")
    edits = []
    for number, record in enumerate(records, 1):
        try:
            edits.append(_READERS[record["do"]](record))
        except (KeyError, TypeError) as error:
            shown = json.dumps(record)[:80]
            raise ValueError(f"{path}: edit {number} is broken: {shown}") from error
    return Edits(str(labels.get("file", "")), images, fingerprint, edits)


def apply_edits(
    table: LabelTable, edits: Edits, *, wrong: str = "keep", renumber: bool = True
) -> Applied:
    """Apply edits to the label file that they belong to.

    Confidence, entropy and the further columns are not changed.

    Args:
        table: the label file, as it was when the page was made.
        edits: as read from a file.
        wrong: how to treat images marked as wrong: "keep" leaves their class, "second" gives them
            the class of the column `second`, "drop" leaves them out.
        renumber: number the classes from 0 without gaps, in the order of their old numbers.

    Raises:
        ValueError: if the edits are of another label file, or for an unknown `wrong`.
    """
    if wrong not in WRONG:
        raise ValueError(f"--wrong must be one of {', '.join(WRONG)}, got {wrong!r}")
    if edits.fingerprint != table.fingerprint:
        raise ValueError(
            f"the edits are of another label file ({edits.source!r}, {edits.images} images; this "
            f"one has {len(table)}): give the one that the page was made of"
        )
    if wrong == "second" and "second" not in table.extra:
        raise ValueError("--wrong second needs a label file with the column second")
    state = _State(table)
    for edit in edits.edits:
        edit.apply(state)
    return state.result(wrong, renumber)


class _State:
    """The labels, names and marks while edits are applied."""

    def __init__(self, table: LabelTable) -> None:
        self.table = table
        self.labels = table.labels.copy()
        self.names = dict(table.names)
        self.wrong = _marks(table, "wrong")
        self.hidden = {int(c) for c in np.unique(table.labels[_marks(table, "hidden")])}
        self.became = np.arange(int(table.labels.max(initial=-1)) + 1)  # each class after merges
        self._row: dict[str, int] = {}

    def rows(self, paths: list[str]) -> np.ndarray:
        """Return the rows of images by their paths."""
        if not self._row:
            self._row = {path: row for row, path in enumerate(self.table.paths)}
        unknown = next((path for path in paths if path not in self._row), None)
        if unknown is not None:
            raise ValueError(f"an edit is of {unknown!r}, which the label file does not have")
        return np.fromiter((self._row[path] for path in paths), np.int64, len(paths))

    def result(self, wrong: str, renumber: bool) -> Applied:
        table, marked = self.table, self.wrong
        extra = dict(table.extra)
        if "second" in extra:
            extra["second"] = self._second(extra["second"])
            if wrong == "second":
                usable = marked & (extra["second"] >= 0)
                self.labels[usable] = extra["second"][usable]
                extra["second"][usable] = -1
                marked = marked & ~usable
        kept = ~marked if wrong == "drop" else np.ones(len(table), bool)
        moved = int(np.count_nonzero(self.labels != table.labels))
        used = np.unique(self.labels[kept])
        labels = np.searchsorted(used, self.labels) if renumber else self.labels
        if renumber and "second" in extra:
            extra["second"] = np.where(
                np.isin(extra["second"], used), np.searchsorted(used, extra["second"]), -1
            )
        extra.setdefault("source_label", table.labels)
        extra["name"] = np.asarray([self.names.get(int(c), "") for c in self.labels], object)
        extra["wrong"] = marked.astype(np.int64)
        extra["hidden"] = np.isin(self.labels, sorted(self.hidden)).astype(np.int64)
        rows = np.flatnonzero(kept)
        new = LabelTable(
            [table.paths[row] for row in rows],
            labels[rows].astype(np.int64),
            table.confidence[rows],
            table.entropy[rows],
            {name: values[rows] for name, values in extra.items()},
        )
        return Applied(new, len(used), moved, int(marked[rows].sum()), len(table) - len(rows))

    def _second(self, second: np.ndarray) -> np.ndarray:
        """Follow the second-best classes through the merges; -1 if there is none left."""
        known = (second >= 0) & (second < len(self.became))
        now = np.where(known, self.became[np.where(known, second, 0)], -1).astype(np.int64)
        now[now == self.labels] = -1
        now[~np.isin(now, np.unique(self.labels))] = -1
        return now


def _marks(table: LabelTable, name: str) -> np.ndarray:
    column = table.extra.get(name)
    if column is None or column.dtype.kind != "i":
        return np.zeros(len(table), bool)
    return np.asarray(column == 1)


def _class(value: object) -> int:
    if type(value) is int and 0 <= value < MOST_CLASSES:
        return value
    raise TypeError(f"{value!r} is no class")


def _flag(value: object) -> bool:
    if isinstance(value, bool):
        return value
    raise TypeError(f"{value!r} is neither true nor false")


def _text(value: object) -> str:
    if isinstance(value, str):
        return value
    raise TypeError(f"{value!r} is no text")


def _listed(value: object) -> list[object]:
    if isinstance(value, list):
        return value
    raise TypeError(f"{value!r} is no list")


def _move(record: Json, to: str) -> Move:
    return Move([_text(path) for path in _listed(record["images"])], _class(record[to]))


def _part(value: object) -> Move:
    if isinstance(value, dict):
        return _move(value, "class")
    raise TypeError(f"{value!r} is no part of a class")


_READERS: dict[str, Callable[[Json], Edit]] = {
    "name": lambda r: Name(_class(r["class"]), _text(r["name"])),
    "merge": lambda r: Merge([_class(c) for c in _listed(r["classes"])], _class(r["into"])),
    "split": lambda r: Split([_part(part) for part in _listed(r["parts"])]),
    "move": lambda r: _move(r, "to"),
    "wrong": lambda r: Wrong([_text(p) for p in _listed(r["images"])], _flag(r["wrong"])),
    "hide": lambda r: Hide(_class(r["class"]), _flag(r["hidden"])),
}
