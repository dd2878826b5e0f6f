"""An unfinished pack in its temporary folder: lock, journal, and what makes it whole."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

from uic_plugin.data.index import ImageIndex
from uic_plugin.data.npy import HEADER_BYTES, npy_header
from uic_plugin.data.pack_pixels import CHUNK, PixelJob, WrittenChunk, files_digest
from uic_plugin.data.packed import (
    ABOUT_FILE,
    ANNOTATIONS_FILE,
    LIST_FILE,
    OFFSETS_FILE,
    PIXELS_FILE,
    SIZES_FILE,
    PackAbout,
)

_PLAN_FILE, _JOURNAL_FILE, _LOCK_FILE = "plan.json", "journal.jsonl", ".lock"
_OWN_FILES = {
    *(_PLAN_FILE, _JOURNAL_FILE, _LOCK_FILE, ABOUT_FILE, LIST_FILE, PIXELS_FILE),
    *(OFFSETS_FILE, SIZES_FILE, ANNOTATIONS_FILE),
    # the list of images while it is being written
    *(f"{LIST_FILE}.new{more}" for more in ("", ".part", ".part.names")),
}
_SAFE_SECONDS = 1.0  # between two moments at which what is done is safe on disk
_PATIENCE = 5.0  # seconds that processes of a killed call may take to end
_SIDE = np.dtype("<i4")  # a height or width
_ROWS = 1 << 20  # images at once in sums over all of them


class PackWork:
    """The unfinished pack in its temporary folder.

    Args:
        part: the folder.
        root: folder of the images.
        index: their names.
        about: what is made of them; an unfinished pack of something else is removed.

    Attributes:
        done: number of chunks, from the first on, that are written.
        end: bytes of their pixels.
        bad: their unreadable images.
        digests: of their files.
    """

    def __init__(self, part: Path, root: Path, index: ImageIndex, about: PackAbout) -> None:
        self.part, self.root, self.index, self.about = part, root, index, about
        if not self._fits():
            for path in part.iterdir():
                if path != index.path and path.name != _LOCK_FILE:
                    path.unlink()
            about.write(part / _PLAN_FILE)
        os.replace(index.path, part / LIST_FILE)
        self.done, self.end = 0, 0
        self.bad: list[tuple[int, str]] = []
        self.digests: list[str] = []
        self._ahead: dict[int, WrittenChunk] = {}
        self._lines: list[str] = []
        self._saved_at = time.monotonic()
        self.sizes = self._sizes()

    def _sizes(self) -> np.ndarray:
        """Map the file of sizes; without a whole one nothing else that is there counts."""
        path, shape = self.part / SIZES_FILE, (len(self.index), 2)
        whole = HEADER_BYTES + 2 * len(self.index) * _SIDE.itemsize
        if not path.exists() or path.stat().st_size != whole:
            (self.part / _JOURNAL_FILE).unlink(missing_ok=True)
            path.write_bytes(npy_header(_SIDE, shape))
            os.truncate(path, whole)
        return np.memmap(path, _SIDE, "r+", HEADER_BYTES, shape)

    def _fits(self) -> bool:
        """Return whether what lies in the folder was begun for the same images and settings."""
        try:
            return PackAbout.read(self.part / _PLAN_FILE).identity == self.about.identity
        except (OSError, ValueError):
            return False

    def name(self, number: int) -> str:
        """Return the path of an image below the folder of the images."""
        name = self.index.name(number)
        if name.startswith("/") or ".." in name.split("/"):
            raise ValueError(f"{name!r} lies outside of the images' folder")
        return name

    def resume(self, job: PixelJob) -> None:
        """Take over the chunks of the journal that have their pixels and unchanged files."""
        journal = self.part / _JOURNAL_FILE
        kept, held = b"", os.fstat(job.file).st_size - HEADER_BYTES
        for line in journal.read_bytes().splitlines(True) if journal.exists() else ():
            try:
                chunk, end, digest, bad = json.loads(line)
            except ValueError:
                break
            # a file of pixels that is gone or cut would be filled up with zeros: black images
            if chunk != self.done or end > held or digest != files_digest(job.paths(chunk)):
                break
            self.done, self.end = self.done + 1, end
            self.digests.append(digest)
            self.bad += [(number, reason) for number, reason in bad]
            kept += line
        journal.write_bytes(kept)
        os.truncate(job.file, HEADER_BYTES + self.end)

    def add(self, written: WrittenChunk) -> None:
        """Take a chunk that is written, in any order."""
        self._ahead[written.chunk] = written
        while (chunk := self._ahead.pop(self.done, None)) is not None:
            first = chunk.chunk * CHUNK
            self.sizes[first : first + len(chunk.sizes)] = chunk.sizes
            self.done, self.end = self.done + 1, chunk.end
            self.bad += chunk.bad
            self.digests.append(chunk.files)
            self._lines.append(json.dumps([chunk.chunk, chunk.end, chunk.files, chunk.bad]) + "\n")

    def save(self, file: int, *, now: bool = False) -> None:
        """Every few seconds, bring pixels and then the journal safely to disk."""
        if not self._lines or (not now and time.monotonic() - self._saved_at < _SAFE_SECONDS):
            return
        os.fsync(file)
        self.sizes.flush()  # type: ignore[attr-defined]
        with open(self.part / _JOURNAL_FILE, "a", encoding="utf-8") as journal:
            journal.write("".join(self._lines))
            journal.flush()
            os.fsync(journal.fileno())
        self._lines.clear()
        self._saved_at = time.monotonic()


def finish(work: PackWork, file: int) -> None:
    """Write what follows from the sizes, then remove what only a resume needs.

    Raises:
        ValueError: if no image can be read.
    """
    sizes, part, total = work.sizes, work.part, len(work.index)
    offsets = np.lib.format.open_memmap(part / OFFSETS_FILE, "w+", np.dtype("<i8"), (total,))
    found: set[tuple[int, int]] = set()
    end = 0
    for first in range(0, total, _ROWS):
        rows = np.asarray(sizes[first : first + _ROWS])
        ends = end + np.cumsum(3 * rows.prod(1, dtype=np.int64))
        offsets[first : first + _ROWS] = np.concatenate(([end], ends[:-1]))
        end = int(ends[-1])
        if len(found) < 2:
            found.update(map(tuple, np.unique(rows[rows[:, 0] > 0], axis=0).tolist()))
    if not found:
        number, reason = work.bad[0]
        raise ValueError(
            f"none of the {total} images of {work.root} can be read: {work.name(number)} ({reason})"
        )
    offsets.flush()
    shape: tuple[int, ...] = (end,)
    if len(found) == 1:
        shape = (total - len(work.bad), *found.pop(), 3)
    os.pwrite(file, npy_header(np.dtype("u1"), shape), 0)
    os.fsync(file)
    np.save(part / ANNOTATIONS_FILE, work.index.targets())
    digest = hashlib.blake2b("".join(work.digests).encode(), digest_size=8).hexdigest()
    about = work.about
    PackAbout(about.fingerprint, about.size, about.square, about.folder, digest, work.bad).write(
        part / ABOUT_FILE
    )
    for name in (_PLAN_FILE, _JOURNAL_FILE, _LOCK_FILE):
        (part / name).unlink()
    for name in (ANNOTATIONS_FILE, ABOUT_FILE, OFFSETS_FILE, SIZES_FILE, LIST_FILE):
        with open(part / name, "rb") as written:
            os.fsync(written.fileno())
    sync_folder(part)


@contextmanager
def own_folder(part: Path) -> Iterator[None]:
    """Make the temporary folder, and keep other processes out of it.

    Raises:
        FileExistsError: if it holds anything that no pack makes.
        OSError: if another process is at work there.
    """
    _refuse_foreign(part)
    part.parent.mkdir(parents=True, exist_ok=True)
    lock = _locked(part)
    try:
        yield
    finally:
        if part.exists() and os.listdir(part) == [_LOCK_FILE]:  # nothing was begun
            with suppress(OSError):
                (part / _LOCK_FILE).unlink()
                part.rmdir()
        os.close(lock)


def _refuse_foreign(part: Path) -> None:
    """Refuse what another command has left, which a pack would remove.

    Raises:
        FileExistsError: if the temporary folder holds anything that no pack makes, or is a file.
    """
    try:
        foreign = [name for name in os.listdir(part) if name not in _OWN_FILES]
    except FileNotFoundError:
        return
    except NotADirectoryError:
        foreign = [part.name]
    if foreign:
        raise FileExistsError(
            f"{part} holds unfinished work of another command, as {min(foreign)}: give another "
            f"folder, or remove that one"
        )


def _locked(part: Path) -> int:
    """Return a descriptor of the temporary folder's lock, which no other process has."""
    until = time.monotonic() + _PATIENCE
    while True:
        lock = -1
        try:
            part.mkdir(exist_ok=True)
            lock = os.open(part / _LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o666)
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(lock), os.stat(part / _LOCK_FILE)):
                return lock
        except FileNotFoundError:
            pass  # another process has put its result in place
        except BlockingIOError:
            if time.monotonic() > until:
                os.close(lock)
                raise OSError(f"{part}: another process is packing there") from None
        if lock >= 0:
            os.close(lock)
        time.sleep(0.05)


def sync_folder(path: Path) -> None:
    """Bring the names in a folder safely to disk."""
    folder = os.open(path, os.O_RDONLY)
    try:
        with suppress(OSError):  # not every file system can
            os.fsync(folder)
    finally:
        os.close(folder)
