"""Walk through folders and follow the links in them, but not in a circle."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

_Number = tuple[int, int]  # device and inode, which tell a folder whatever its path


def walk_folders(top: Path, above: Path | None = None) -> Iterator[tuple[str, list[str]]]:
    """Iterate over a folder and all below it, each with the names of its files.

    A link to a folder that it lies in is left out: all images would be listed again, as often as
    the system follows links. No file is looked at, only folders are.

    Args:
        top: the folder.
        above: a folder around it that counts as one that links lie in.
    """
    start = os.fspath(top)
    around = frozenset() if above is None else frozenset((_number(above),))
    if not os.path.isdir(start) or _number(start) in around:
        return
    path_to: dict[str, frozenset[_Number]] = {start: around | {_number(start)}}
    for folder, folders, files in os.walk(start, followlinks=True):
        path = path_to.pop(folder)
        kept = []
        for name in folders:
            below = os.path.join(folder, name)
            try:
                number = _number(below)
            except OSError:  # it is gone, and `os.walk` would pass over it, too
                continue
            if number not in path:
                path_to[below] = path | {number}
                kept.append(name)
        folders[:] = kept
        yield folder, files


def class_folders_of(root: Path) -> list[str]:
    """Return the names of the subfolders, sorted, without links to the folder itself."""
    own = _number(root)
    folders = (entry.name for entry in os.scandir(root) if entry.is_dir())
    return sorted(name for name in folders if _number(root / name) != own)


def _number(path: str | Path) -> _Number:
    status = os.stat(path)
    return status.st_dev, status.st_ino
