"""Write a dataset's folders completely or not at all, and resume an interrupted call."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from pathlib import Path

_MARK_FILE = ".uic-complete"


def write_tree(root: Path, mark: str, fill: Callable[[Path], None]) -> Path:
    """Fill `.NAME.part` beside `root` and rename it to `root` when it is complete.

    Args:
        root: the folder to make; left unchanged if it is complete already.
        mark: identifies the content; written to a file of the finished tree.
        fill: writes the content into a given folder, which may hold files of an earlier,
            interrupted call.

    Raises:
        FileExistsError: if `root` holds something else.
    """
    if is_complete(root, mark):
        return root
    root.parent.mkdir(parents=True, exist_ok=True)
    folder = os.open(root.parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)  # another process may be writing the same tree
        return root if is_complete(root, mark) else _write(root, mark, fill)
    finally:
        os.close(folder)


def _write(root: Path, mark: str, fill: Callable[[Path], None]) -> Path:
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise FileExistsError(
            f"{root} exists and holds something else: give a new folder, or remove it"
        )
    part = root.with_name(f".{root.name}.part")
    part.mkdir(parents=True, exist_ok=True)
    fill(part)
    (part / _MARK_FILE).write_text(mark)
    os.replace(part, root)  # an empty folder may be replaced
    return root


def is_complete(root: Path, mark: str) -> bool:
    """Return whether `root` is a finished tree of this content."""
    file = root / _MARK_FILE
    return file.is_file() and file.read_text() == mark
