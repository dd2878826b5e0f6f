"""Write a dataset's folders whole or not at all, and go on where an earlier try was stopped."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from pathlib import Path

_MARK_FILE = ".uic-complete"


def write_tree(root: Path, mark: str, fill: Callable[[Path], None]) -> Path:
    """Fill `.NAME.part` beside `root` and rename it to `root` when it is complete.

    Args:
        root: the folder to make; left as it is if it is complete already.
        mark: identifies the content; stands in a file of the finished tree.
        fill: writes the content into the folder that it is given, which holds what an earlier,
            interrupted call wrote.

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
    """Whether `root` is a finished tree of this content."""
    file = root / _MARK_FILE
    return file.is_file() and file.read_text() == mark
