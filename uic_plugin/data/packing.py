"""Pack images: list them, decode them in processes, and put the result in place when it is whole.

    pack_images(Path("photos"), Path("packed"), PackSettings(size=256))

Everything is written into `.NAME.part` beside the result and renamed at the end. A journal there
says which chunks of images are safely on disk: after a kill the same call resumes behind them.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

from uic_plugin.data.held_out import SplitImages, index_of_split
from uic_plugin.data.images import BadImageError
from uic_plugin.data.index import ImageIndex, read_index, write_index
from uic_plugin.data.npy import HEADER_BYTES, npy_header
from uic_plugin.data.pack import PackSettings
from uic_plugin.data.pack_pixels import CHUNK, PixelJob, WrittenChunk, files_digest, written_chunks
from uic_plugin.data.packed import (
    ABOUT_FILE,
    ANNOTATIONS_FILE,
    LIST_FILE,
    OFFSETS_FILE,
    PIXELS_FILE,
    SIZES_FILE,
    PackAbout,
    PackStore,
    is_packed,
)
from uic_plugin.files import told_where

_PLAN_FILE, _JOURNAL_FILE = "plan.json", "journal.jsonl"
_SAFE_SECONDS = 5.0  # between two moments at which what is done is safe on disk
_PATIENCE = 5.0  # seconds that processes of a killed call may take to end
_ROWS = 1 << 20  # images at once in sums over all of them

Progress = Callable[[int, int], None]


def pack_images(
    source: Path,
    out: Path,
    settings: PackSettings,
    *,
    folder: Path | None = None,
    progress: Progress = lambda done, total: None,
) -> PackStore:
    """Decode all images of a list into a packed folder; the same call resumes a stopped one.

    Args:
        source: a folder as for training, flat or with class folders; an index file of one; or a
            split's .csv file.
        out: folder to make; one that is complete is left as it is.
        settings: how.
        folder: of an index file's images; by default `images/` beside it, or what it lies in.
        progress: called with the number of images done, and of all.

    Raises:
        FileNotFoundError: without images.
        FileExistsError: if `out` holds something else, or a pack of other images or settings.
        BadImageError: for an unreadable image, see `PackSettings`.
        ValueError: if no image can be read, or `out` lies in the folder of the images.
        OSError: if another process packs there, or the disk is full.
    """
    root = _root_of(source, folder)
    if out.resolve().is_relative_to(root.resolve()) and source.is_dir():
        raise ValueError(f"{out} lies in {root}, whose class folder it would be: pack elsewhere")
    if out.exists() and not is_packed(out) and (not out.is_dir() or any(out.iterdir())):
        raise FileExistsError(f"{out} exists and holds something else: give a new folder")
    part = out.with_name(f".{out.name}.part")
    with told_where(out), _own(part):
        return _pack(source, root, out, part, settings, progress)


def _pack(
    source: Path, root: Path, out: Path, part: Path, settings: PackSettings, progress: Progress
) -> PackStore:
    """Pack within a folder that no other process writes to."""
    index = _listed(source, part / f"{LIST_FILE}.new")
    size, square, home = settings.size, settings.square, str(root.resolve())
    about = PackAbout(index.fingerprint, size, square, home)
    if is_packed(out):
        store = PackStore.open(out)
        shutil.rmtree(part)
        if store.about.identity != about.identity:
            raise FileExistsError(
                f"{out} holds other images, or has other settings (--size {store.about.size}"
                f"{' --square' * store.about.square}, of {store.folder}): give a new folder"
            )
        return store
    work = _Work(part, root, index, about)
    file = os.open(part / PIXELS_FILE, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        job = PixelJob(root, work.name, len(index), size, square, file, HEADER_BYTES)
        work.resume(job)
        workers = settings.workers
        if workers is None:
            workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
        _run(work, job, settings, workers, progress)
        _finish(work, file)
    finally:
        os.close(file)
    os.replace(part, out)
    _sync_folder(out.parent)
    return PackStore.open(out)


def _run(
    work: _Work, job: PixelJob, settings: PackSettings, workers: int, progress: Progress
) -> None:
    """Decode what is missing; on an error keep what is done."""
    count, bad = min(work.done * CHUNK, job.total), len(work.bad)
    if job.chunks - work.done < 2:
        workers = 0
    progress(count, job.total)
    try:
        for written in written_chunks(job, first=work.done, offset=work.end, workers=workers):
            if written is not None:
                bad += len(written.bad)
                _check_bad(job, settings, written, bad)
                work.add(written)
                count += len(written.sizes)
                progress(count, job.total)
            work.save(job.file)
    finally:
        work.save(job.file, now=True)


def _check_bad(job: PixelJob, settings: PackSettings, written: WrittenChunk, count: int) -> None:
    """Stop at an unreadable image, if told to."""
    if not written.bad:
        return
    number, reason = written.bad[0]
    path = job.root / job.name(number)
    if settings.on_bad_image == "stop":
        raise BadImageError(
            f"cannot read {path} ({reason}): mend or remove it, or pack without it: "
            f"--on-bad-image skip; the same command resumes"
        )
    if settings.max_bad_images is not None and count > settings.max_bad_images:
        raise BadImageError(
            f"{count} images cannot be read, the last was {path} ({reason}): mend them, or raise "
            f"--max-bad-images {settings.max_bad_images}; the same command resumes"
        )


class _Work:
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
                if path != index.path:
                    path.unlink()
            about.write(part / _PLAN_FILE)
        os.replace(index.path, part / LIST_FILE)
        self.done, self.end = 0, 0
        self.bad: list[tuple[int, str]] = []
        self.digests: list[str] = []
        self._ahead: dict[int, WrittenChunk] = {}
        self._lines: list[str] = []
        self._saved_at = time.monotonic()
        is_new = not (part / SIZES_FILE).exists()
        self.sizes = np.lib.format.open_memmap(
            part / SIZES_FILE, "w+" if is_new else "r+", np.dtype("<i4"), (len(index), 2)
        )

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
        """Take over the chunks of the journal whose files have not changed since."""
        journal = self.part / _JOURNAL_FILE
        kept = b""
        for line in journal.read_bytes().splitlines(True) if journal.exists() else ():
            try:
                chunk, end, digest, bad = json.loads(line)
            except ValueError:
                break
            if chunk != self.done or digest != files_digest(job.paths(chunk)):
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
        if not now and time.monotonic() - self._saved_at < _SAFE_SECONDS:
            return
        os.fsync(file)
        self.sizes.flush()
        with open(self.part / _JOURNAL_FILE, "a", encoding="utf-8") as journal:
            journal.write("".join(self._lines))
            journal.flush()
            os.fsync(journal.fileno())
        self._lines.clear()
        self._saved_at = time.monotonic()


def _finish(work: _Work, file: int) -> None:
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
    for name in (_PLAN_FILE, _JOURNAL_FILE):
        (part / name).unlink()
    for name in (ANNOTATIONS_FILE, ABOUT_FILE, OFFSETS_FILE, SIZES_FILE, LIST_FILE):
        with open(part / name, "rb") as written:
            os.fsync(written.fileno())
    _sync_folder(part)


def digest_of_all(root: Path, names: list[str]) -> str:
    """Return the `files` of a pack of these images, as their files are now."""
    paths = [os.path.join(root, name) for name in names]
    chunks = (files_digest(paths[i : i + CHUNK]) for i in range(0, len(paths), CHUNK))
    return hashlib.blake2b("".join(chunks).encode(), digest_size=8).hexdigest()


def _root_of(source: Path, folder: Path | None) -> Path:
    """Return the folder of a source's images.

    Raises:
        FileNotFoundError: if there is no such source or folder.
    """
    if not source.exists():
        raise FileNotFoundError(f"{source}: there is no such folder of images, index or .csv file")
    if folder is not None and (source.is_dir() or not folder.is_dir()):
        wanted = "is for an index file" if source.is_dir() else "there is no such folder"
        raise FileNotFoundError(f"--folder {folder}: {wanted}")
    if source.is_dir():
        return source
    if source.suffix == ".csv":
        return folder or SplitImages(source, lambda image: image).root
    beside = source.parent / "images"
    root = folder or (beside if beside.is_dir() else source.parent)
    first = read_index(source).name(0)
    if not (root / first).is_file():
        raise FileNotFoundError(
            f"{root} has no {first}, the first image of {source}: give their folder, --folder"
        )
    return root


def _listed(source: Path, out: Path) -> ImageIndex:
    """Write the list of a source's images, and read it."""
    if source.is_dir():
        write_index(source, out)
    elif source.suffix == ".csv":
        index_of_split(source, out)
    else:
        shutil.copyfile(source, out)
    return read_index(out)


@contextmanager
def _own(part: Path) -> Iterator[None]:
    """Make the temporary folder, and keep other processes out of it.

    Raises:
        OSError: if another process is at work there.
    """
    part.parent.mkdir(parents=True, exist_ok=True)
    folder = _locked(part)
    try:
        yield
    finally:
        os.close(folder)
        with suppress(OSError):
            part.rmdir()  # if nothing was begun


def _locked(part: Path) -> int:
    """Return a descriptor of the temporary folder that no other process has locked."""
    until = time.monotonic() + _PATIENCE
    while True:
        part.mkdir(exist_ok=True)
        folder = os.open(part, os.O_RDONLY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(folder), os.stat(part)):
                return folder
        except FileNotFoundError:
            pass  # the other process has put its result in place
        except BlockingIOError:
            if time.monotonic() > until:
                os.close(folder)
                raise OSError(f"{part}: another process is packing there") from None
        os.close(folder)
        time.sleep(0.05)


def _sync_folder(path: Path) -> None:
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
