"""Edits made on the page of classes, applied to the label file that they belong to.

How a file of edits looks: `uic_plugin.data.edits_file`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from uic_plugin.data.labels import LabelTable

WRONG = ("keep", "second", "drop")


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


def apply_edits(
    table: LabelTable, edits: Edits, *, wrong: str = "keep", renumber: bool = True
) -> Applied:
    """Apply edits to the label file that they belong to.

    Columns of classes follow the merges (`second`, `head_0`, ...), and so does `agreement` of
    images in merged classes; confidence, entropy and the other columns are not changed.

    Args:
        table: the label file, as it was when the page was made.
        edits: as read from a file.
        wrong: how to treat images marked as wrong: "keep" leaves their class, "second" gives them
            the class of the column `second`, "drop" leaves them out.
        renumber: number the classes from 0 without gaps, in the order of their old numbers.

    Raises:
        ValueError: if the edits are of another label file, for an unknown `wrong`, a column
            `second` that holds no classes, or if no image is left.
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
    for name in _class_columns(table):
        if table.extra[name].dtype.kind != "i":
            raise ValueError(
                f"the label file's column {name} must hold whole numbers, -1 for none: write it "
                f"anew, or leave the column out"
            )
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
        self.wrong = table.marked("wrong")
        self.hidden = {int(c) for c in np.unique(table.labels[table.marked("hidden")])}
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
        for name in _class_columns(table):
            extra[name] = self._followed(extra[name])
        if "agreement" in extra:
            extra["agreement"] = self._agreement(extra)
        if "second" in extra:
            extra["second"] = self._second(extra["second"])
            if wrong == "second":
                usable = marked & (extra["second"] >= 0)
                self.labels[usable] = extra["second"][usable]
                extra["second"][usable] = -1
                marked = marked & ~usable
        kept = ~marked if wrong == "drop" else np.ones(len(table), bool)
        if not kept.any():
            raise ValueError("no image would be left: all are marked as wrong (--wrong keep)")
        moved = int(np.count_nonzero(self.labels != table.labels))
        used = np.unique(self.labels[kept])
        labels = np.searchsorted(used, self.labels) if renumber else self.labels
        for name in _class_columns(table) if renumber else ():
            extra[name] = np.where(
                np.isin(extra[name], used), np.searchsorted(used, extra[name]), -1
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

    def _followed(self, classes: np.ndarray) -> np.ndarray:
        """Follow classes through the merges; -1 for none."""
        known = (classes >= 0) & (classes < len(self.became))
        return np.where(known, self.became[np.where(known, classes, 0)], -1).astype(np.int64)

    def _agreement(self, extra: dict[str, np.ndarray]) -> np.ndarray:
        """Return the share of heads that agree, made anew for images in merged classes."""
        heads = [extra[name] for name in _class_columns(self.table) if name != "second"]
        old = self.table.labels
        gone = self.became != np.arange(len(self.became))
        merged = np.isin(self.became[old], self.became[gone]) if gone.any() else np.zeros(0, bool)
        if not heads or not merged.any():
            return extra["agreement"]
        own = self.became[old]
        share = np.mean([head == own for head in heads], axis=0).astype(np.float32)
        return np.where(merged, share, extra["agreement"])

    def _second(self, second: np.ndarray) -> np.ndarray:
        """Remove second-best classes that an image is in now, or that are gone: -1 for none."""
        now = second.copy()
        now[now == self.labels] = -1
        now[~np.isin(now, np.unique(self.labels))] = -1
        return now


def _class_columns(table: LabelTable) -> list[str]:
    """Name the further columns that hold classes: `second` and those of the heads."""
    return [name for name in table.extra if name == "second" or re.fullmatch(r"head_\d+", name)]
