"""Write a dataset's folders completely or not at all, and resume an interrupted call."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from pathlib import Path

_MARK_FILE, _BEGUN_FILE = ".uic-complete", ".uic-begun"


def write_tree(root: Path, mark: str, fill: Callable[[Path], None]) -> Path:
    """Fill `.NAME.part` beside `root` and rename it to `root` when it is complete.

    Args:
        root: the folder to make; left unchanged if it is complete already.
        mark: identifies the content; written to a file of the finished tree.
        fill: writes the content into a given folder, which may hold files of an earlier,
            interrupted call for the same mark.

    Raises:
        FileExistsError: if `root` or `.NAME.part` holds something else.
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
    if not is_complete(part, mark):  # a kill may come between the last two steps
        _begin(part, mark)
        fill(part)
        os.replace(part / _BEGUN_FILE, part / _MARK_FILE)
    os.replace(part, root)  # an empty folder may be replaced
    return root


def _begin(part: Path, mark: str) -> None:
    """Make the folder `part` and say in it what is being made, unless it says so already.

    Raises:
        FileExistsError: if it holds anything else, which would be mixed into the content.
    """
    begun = part / _BEGUN_FILE
    if begun.is_file() and begun.read_text() == mark:
        return
    if part.exists() and (not part.is_dir() or {*os.listdir(part)} - {_BEGUN_FILE}):
        raise FileExistsError(
            f"{part} holds unfinished work of another command or version: give another folder, or "
            f"remove that one"
        )
    part.mkdir(parents=True, exist_ok=True)
    begun.write_text(mark)


def is_complete(root: Path, mark: str) -> bool:
    """Return whether `root` is a finished tree of this content."""
    file = root / _MARK_FILE
    return file.is_file() and file.read_text() == mark
