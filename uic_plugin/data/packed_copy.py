"""A decoded copy of a small dataset that the plugin made itself, so that no run decodes it again.

It lies in the cache (`default_data_dir`), never among the images, and belongs to their files as
they are: names, sizes and times. If one of them changes, the copy is made again. Where it cannot be
written the images are read as before.
"""

from __future__ import annotations

import fcntl
import hashlib
import itertools
import multiprocessing
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from uic_plugin.data.images import names_fingerprint
from uic_plugin.data.index import folder_groups
from uic_plugin.data.listed import opened
from uic_plugin.data.pack import PackSettings
from uic_plugin.data.pack_pixels import digest_of_all
from uic_plugin.data.packed import PackStore, is_packed
from uic_plugin.data.packing import pack_images
from uic_plugin.data.resolve import default_data_dir
from uic_plugin.data.views import BAD_IMAGE_ERRORS

_MOST_BYTES = 1 << 30  # of a copy; larger datasets are packed on purpose
_PROBED = 32  # images whose sizes are looked at


def packed_copy(folder: Path) -> PackStore | None:
    """Return the decoded copy of a folder of small images, made if need be.

    Args:
        folder: flat, or with a subfolder per class.

    Returns:
        The copy; None if it would be large, cannot be written, or a class folder has no images.
    """
    try:
        groups = [(name, list(names)) for name, names in folder_groups(folder)]
    except ValueError:  # images beside class folders
        return None
    names = list(itertools.chain.from_iterable(names for _, names in groups))
    if not names or not all(names for _, names in groups) or not _is_small(folder, names):
        return None
    home = os.fsencode(folder.resolve())
    key = hashlib.blake2b(home, digest_size=8).hexdigest()
    copy = default_data_dir() / "packed" / f"{folder.resolve().name}-{key}"
    files = digest_of_all(folder, names)
    fingerprint = names_fingerprint(names)
    try:
        store = _whole(copy, fingerprint, files)
        if store is None:
            copy.parent.mkdir(parents=True, exist_ok=True)
            with _alone(copy.parent / ".lock"):  # other ranks wait, and find it
                store = _whole(copy, fingerprint, files) or _made(folder, copy)
    except (OSError, ValueError):  # no permission, no room, no image that can be read
        return None
    is_current = (store.about.fingerprint, store.about.files) == (fingerprint, files)
    return store if is_current else None  # images that change meanwhile


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """Wait until no other process holds a lock."""
    with open(lock, "ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _whole(copy: Path, fingerprint: str, files: str) -> PackStore | None:
    """Return a copy that is there and belongs to these files."""
    if not is_packed(copy):
        return None
    try:
        store = PackStore.open(copy)
    except (OSError, ValueError):
        return None
    about = store.about
    is_current = (about.fingerprint, about.files, about.size) == (fingerprint, files, 0)
    return store if is_current else None


def _made(folder: Path, copy: Path) -> PackStore:
    """Pack a folder in the place of an outdated copy.

    Raises:
        OSError: if it cannot be written.
        ValueError: if no image can be read.
    """
    new = copy.with_name(f"{copy.name}.new")
    shutil.rmtree(new, ignore_errors=True)
    is_daemon = multiprocessing.current_process().daemon  # which may have no processes of its own
    workers = 0 if is_daemon else None
    pack_images(folder, new, PackSettings(0, on_bad_image="skip", workers=workers))
    old = copy.with_name(f"{copy.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if copy.exists():
        copy.rename(old)  # a process that has mapped it keeps its pages
    new.rename(copy)
    shutil.rmtree(old, ignore_errors=True)
    return PackStore.open(copy)


def _is_small(folder: Path, names: list[str]) -> bool:
    """Return whether a copy of all images is estimated to be small."""
    step = max(1, len(names) // _PROBED)
    pixels = []
    for name in names[::step]:
        try:
            with opened(folder / name) as image:
                pixels.append(image.width * image.height)
        except BAD_IMAGE_ERRORS:
            continue
    return bool(pixels) and 3 * len(names) * sum(pixels) / len(pixels) <= _MOST_BYTES
