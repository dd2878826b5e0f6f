"""Features of a folder's images in a folder of files, one row per image.

    store = FeatureStore.open(Path("features"))
    store.names                                  # N paths below the images' folder
    store.features(store.names)                  # (N, D) float16

    store.json       the network, its weights' fingerprint, layer, preprocessing and precision
    features.npy     (N, D) float16, for memory mapping, in numpy's format
    images.jsonl     one line per image in row order: path, size and time of its file; for an
                     unreadable image, which has no row, the reason

Rows are appended, then their lines: a row without a line does not count. A process that was killed
leaves at most a batch of such rows, which the next one overwrites.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from uic_plugin.data.npy import HEADER_BYTES, npy_header
from uic_plugin.files import replacing, told_where

ABOUT_FILE, ROWS_FILE, IMAGES_FILE = "store.json", "features.npy", "images.jsonl"
_LOCK_FILE = ".lock"
_VERSION = 1
_ROW_TYPE = np.dtype("<f2")


@dataclass(frozen=True)
class StoreIdentity:
    """The network and the folder of all features of a store.

    Attributes:
        backbone, weights, size: given by the user, to open the network again.
        fingerprint: of the network's weights.
        layer: the features are its output.
        preprocessing: of the images.
        precision: of the forward pass, "32" or "bf16".
        folder: the images' folder, absolute.
        dim: D.
    """

    backbone: str
    weights: str | None
    size: int | None
    fingerprint: str
    layer: str
    preprocessing: str
    precision: str
    folder: str
    dim: int

    def difference(self, other: StoreIdentity) -> str:
        """Return why features of `other` do not belong here, for a user; empty if they do."""
        for name, words in (
            ("fingerprint", "other weights"),
            ("layer", "another layer"),
            ("preprocessing", "another preprocessing"),
            ("precision", "another precision"),
            ("folder", "another folder"),
        ):
            # a description of transforms has several lines, an error has one
            here, there = (" ".join(getattr(of, name).split()) for of in (self, other))
            if here != there:
                return f"{words} ({here} there, {there} here)"
        return ""


def stored_layer(path: Path) -> str | None:
    """Return the layer of a store's features, None where there is no store that can be read."""
    try:
        layer = json.loads((path / ABOUT_FILE).read_text(encoding="utf-8")).get("layer")
    except (OSError, ValueError, AttributeError):
        return None
    return layer if isinstance(layer, str) else None


@dataclass(frozen=True)
class FileFacts:
    """Size in bytes and modification time of a file: features of changed files are recomputed."""

    size: int
    changed: int

    @classmethod
    def of(cls, path: Path) -> FileFacts:
        """Return the facts of a file."""
        status = path.stat()
        return cls(status.st_size, status.st_mtime_ns)


@dataclass(frozen=True)
class Entry:
    """An image of a store.

    Attributes:
        name: its path below the images' folder.
        facts: of its file.
        row: its row in the features; None for an image that cannot be read.
        reason: why it cannot be read.
    """

    name: str
    facts: FileFacts
    row: int | None
    reason: str = ""


class FeatureStore:
    """Features in a folder.

    Args:
        path: the folder.
        identity: network and folder of the images.
        entries: images by name.
        rows: number of complete rows in the file of features, including outdated ones.
    """

    def __init__(
        self, path: Path, identity: StoreIdentity, entries: dict[str, Entry], rows: int
    ) -> None:
        self.path, self.identity, self.entries, self.rows = path, identity, entries, rows

    @classmethod
    def open(cls, path: Path) -> FeatureStore:
        """Open a store to read it.

        Raises:
            FileNotFoundError: if there is none.
            ValueError: if it is damaged.
        """
        file = path / ABOUT_FILE
        if not file.is_file():
            raise FileNotFoundError(f"{path}: no features there; 'uic embed' makes them")
        try:
            about = json.loads(file.read_text(encoding="utf-8"))
            version = about.pop("version")
            identity = StoreIdentity(**about)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"{file} is damaged: remove {path} and compute it anew") from error
        if version != _VERSION:
            raise ValueError(f"{file} is of version {version}, this program reads {_VERSION}")
        rows, entries = 0, {}
        for entry in _entries(path / IMAGES_FILE):
            entries[entry.name] = entry
            rows = max(rows, -1 if entry.row is None else entry.row) + (entry.row is not None)
        held = (_size(path / ROWS_FILE) - HEADER_BYTES) // (identity.dim * _ROW_TYPE.itemsize)
        if held < rows:
            raise ValueError(
                f"{path / ROWS_FILE} has {max(held, 0)} rows, {IMAGES_FILE} names {rows}: it is "
                f"damaged, remove {path} and compute it anew"
            )
        return cls(path, identity, entries, rows)

    @property
    def names(self) -> list[str]:
        """Images that have features, sorted."""
        return sorted(name for name, entry in self.entries.items() if entry.row is not None)

    def bad(self, names: Sequence[str]) -> list[Entry]:
        """Return those of some images that could not be read."""
        found = (self.entries.get(name) for name in names)
        return [entry for entry in found if entry is not None and entry.row is None]

    def features(self, names: Sequence[str]) -> np.ndarray:
        """Return features (len(names), D) float16; memory-mapped if the names are all rows."""
        rows = [self.entries[name].row for name in names]
        if not rows:
            return np.empty((0, self.identity.dim), _ROW_TYPE)
        mapped = np.memmap(
            self.path / ROWS_FILE,
            _ROW_TYPE,
            "r",
            offset=HEADER_BYTES,
            shape=(self.rows, self.identity.dim),
        )
        if rows == list(range(self.rows)):
            return mapped
        return mapped[np.asarray(rows, np.int64)]


class StoreWriter:
    """Appends to a store; see `writing`."""

    def __init__(self, store: FeatureStore, rows: BinaryIO, lines: BinaryIO) -> None:
        self.store, self._rows, self._lines = store, rows, lines

    def append(self, entries: Sequence[Entry], features: np.ndarray) -> None:
        """Add images; `features` has a row for each of `entries` without a reason.

        Raises:
            ValueError: for features that are not finite in float16.
            OSError: for example if the disk is full; earlier features are kept.
        """
        rows = np.ascontiguousarray(features, _ROW_TYPE)
        if not np.isfinite(rows).all():
            raise ValueError(
                f"layer {self.store.identity.layer!r} of {self.store.identity.backbone} puts out "
                f"numbers that are not finite, or above 65,504: choose another layer"
            )
        placed, lines, row = [], [], self.store.rows
        for entry in entries:
            line = {"path": entry.name, **dataclasses.asdict(entry.facts)}
            if entry.reason:
                line["reason"] = entry.reason
                placed.append(dataclasses.replace(entry, row=None))
            else:
                placed.append(dataclasses.replace(entry, row=row))
                row += 1
            lines.append(json.dumps(line) + "\n")
        with told_where(self.store.path):
            self._rows.write(rows.tobytes())
            self._rows.flush()
            os.fsync(self._rows.fileno())
            self._lines.write("".join(lines).encode())
            self._lines.flush()
        self.store.entries.update({entry.name: entry for entry in placed})
        self.store.rows = row


@contextmanager
def writing(path: Path, identity: StoreIdentity) -> Iterator[StoreWriter]:
    """Open or create a store to add images; one process at a time.

    Raises:
        ValueError: if the store has features of another network, layer or folder.
        FileExistsError: if files of something else lie where the store's would.
        OSError: if another process writes to it, or the disk is full.
    """
    with told_where(path):
        path.mkdir(parents=True, exist_ok=True)
    with _lock(path):
        if (path / ABOUT_FILE).exists():
            store = FeatureStore.open(path)
            difference = store.identity.difference(identity)
            if difference:
                raise ValueError(
                    f"{path} holds features of {difference}: name another folder for these"
                )
        else:
            for name in (ROWS_FILE, IMAGES_FILE):  # never written before the file that is missing
                if (path / name).exists():
                    raise FileExistsError(
                        f"{path / name} is there and of no features of this program (there is no "
                        f"{ABOUT_FILE} beside it): give another folder for the features"
                    )
            store = FeatureStore(path, identity, {}, 0)
            with told_where(path), replacing(path / ABOUT_FILE) as part:
                about = {"version": _VERSION, **dataclasses.asdict(identity)}
                part.write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
        row_bytes = identity.dim * _ROW_TYPE.itemsize
        with (
            told_where(path),
            open(_present(path / ROWS_FILE), "r+b") as rows,
            open(_present(path / IMAGES_FILE), "r+b") as lines,
        ):
            lines.truncate(_whole_lines(path / IMAGES_FILE))
            lines.seek(0, os.SEEK_END)
            rows.truncate(HEADER_BYTES + store.rows * row_bytes)
            rows.seek(HEADER_BYTES + store.rows * row_bytes)
            try:
                yield StoreWriter(store, rows, lines)
            finally:
                rows.seek(0)
                rows.write(npy_header(_ROW_TYPE, (store.rows, identity.dim)))


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    try:
        import fcntl
    except ImportError:  # not on Windows
        yield
        return
    with open(path / _LOCK_FILE, "wb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise OSError(f"{path}: another process is writing features there") from error
        yield


def _entries(path: Path) -> Iterator[Entry]:
    """Iterate over images in the order of their lines; an unfinished last line does not count."""
    if not path.is_file():
        return
    row = 0
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                return
            try:
                said: dict[str, Any] = json.loads(line)
                facts = FileFacts(said["size"], said["changed"])
                reason = said.get("reason", "")
                yield Entry(said["path"], facts, None if reason else row, reason)
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(
                    f"{path} is damaged in line {number}: remove {path.parent} and compute it anew"
                ) from error
            row += not reason


def _present(path: Path) -> Path:
    path.touch()
    return path


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _whole_lines(path: Path) -> int:
    """Return the number of bytes up to the end of the last complete line."""
    size = _size(path)
    with open(path, "rb") as file:
        step = 1 << 16
        for end in range(size, 0, -step):
            first = max(0, end - step)
            file.seek(first)
            found = file.read(end - first).rfind(b"\n")
            if found >= 0:
                return first + found + 1
    return 0
