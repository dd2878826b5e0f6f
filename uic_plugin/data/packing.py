"""Pack images: list them, decode them in processes, and put the result in place when it is whole.

    pack_images(Path("photos"), Path("packed"), PackSettings(size=256))

Everything is written into `.NAME.part` beside the result and renamed at the end. A journal there
says which chunks of images are safely on disk: after a kill the same call resumes behind them.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from uic_plugin.data.held_out import SplitImages, index_of_split
from uic_plugin.data.images import BadImageError
from uic_plugin.data.index import ImageIndex, read_index, write_index
from uic_plugin.data.npy import HEADER_BYTES
from uic_plugin.data.pack import PackSettings
from uic_plugin.data.pack_pixels import CHUNK, PixelJob, digest_of_all, written_chunks
from uic_plugin.data.pack_work import PackWork, finish, own_folder, sync_folder
from uic_plugin.data.packed import LIST_FILE, PIXELS_FILE, PackAbout, PackStore, is_packed
from uic_plugin.files import told_where

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
    with told_where(out), own_folder(part):
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
        if store.about.files != digest_of_all(root, list(index.names())):
            raise FileExistsError(
                f"{out} was packed before some of its images changed: give a new folder, or remove "
                f"it first"
            )
        return store
    work = PackWork(part, root, index, about)
    file = os.open(part / PIXELS_FILE, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        job = PixelJob(root, work.name, len(index), size, square, file, HEADER_BYTES)
        work.resume(job)
        workers = settings.workers
        if workers is None:
            workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
        _run(work, job, settings, workers, progress)
        finish(work, file)
    finally:
        os.close(file)
    os.replace(part, out)
    sync_folder(out.parent)
    return PackStore.open(out)


def _run(
    work: PackWork, job: PixelJob, settings: PackSettings, workers: int, progress: Progress
) -> None:
    """Decode what is missing; on an error keep what is done."""
    count, bad = min(work.done * CHUNK, job.total), len(work.bad)
    if job.chunks - work.done < 2:
        workers = 0
    progress(count, job.total)
    _check_bad(job, settings, work.bad, bad)  # of a stopped call that was told otherwise
    try:
        for written in written_chunks(job, first=work.done, offset=work.end, workers=workers):
            if written is not None:
                bad += len(written.bad)
                _check_bad(job, settings, written.bad, bad)
                work.add(written)
                count += len(written.sizes)
                progress(count, job.total)
            work.save(job.file)
    except BaseException:
        work.save(job.file, now=True)
        raise


def _check_bad(
    job: PixelJob, settings: PackSettings, found: list[tuple[int, str]], count: int
) -> None:
    """Stop at unreadable images, if told to.

    Args:
        job: the images.
        settings: whether to stop.
        found: numbers of unreadable images, and the reasons.
        count: number of all that were found so far.

    Raises:
        BadImageError: for the last of `found`.
    """
    if not found:
        return
    number, reason = found[-1]
    path = job.root / job.name(number)
    if settings.on_bad_image == "stop":
        raise BadImageError(
            f"cannot read {path} ({reason}): repair or remove it, or pack without it: "
            f"--on-bad-image skip; the same command resumes"
        )
    if settings.max_bad_images is not None and count > settings.max_bad_images:
        raise BadImageError(
            f"{count} images cannot be read, the last was {path} ({reason}): fix them, or raise "
            f"--max-bad-images {settings.max_bad_images}; the same command resumes"
        )


def _root_of(source: Path, folder: Path | None) -> Path:
    """Return the folder of a source's images.

    Raises:
        FileNotFoundError: if there is no such source or folder.
    """
    if not source.exists():
        raise FileNotFoundError(f"{source}: there is no such folder of images, index or .csv file")
    listed = source.is_file() and source.suffix != ".csv"
    if folder is not None and not (listed and folder.is_dir()):
        wanted = "there is no such folder" if listed else "is for an index file"
        raise FileNotFoundError(f"--folder {folder}: {wanted}")
    if source.is_dir():
        return source
    if source.suffix == ".csv":
        return SplitImages(source, lambda image: image).root
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
