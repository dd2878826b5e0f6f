"""Write files completely or not at all."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_RESUMES = "the same command resumes from what is there"
_AGAIN = "then give the same command again"


@contextmanager
def told_where(path: Path, advice: str = _RESUMES) -> Iterator[None]:
    """Say of a full disk that it is where `path` lies, and what helps.

    Raises:
        OSError: in place of one of a full disk; any other error passes as it is.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise OSError(f"{path}: {os.strerror(error.errno)}; make room, {advice}") from error
        raise


def refuse_folder(path: Path) -> None:
    """Refuse a folder where a file is to be written.

    Raises:
        IsADirectoryError: if `path` is one.
    """
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder: name a file")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; the file written there is flushed and replaces `path`.

    On an error the temporary file is removed and `path` is left unchanged.

    Raises:
        IsADirectoryError: if `path` is a folder.
        OSError: that names `path`, if the disk is full.
    """
    refuse_folder(path)  # before the work, not when all of it is done
    part = path.with_name(path.name + ".part")
    with told_where(path, _AGAIN):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield part
            with open(part, "rb") as file:
                os.fsync(file.fileno())
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)


@contextmanager
def replacing_folder(part: Path, path: Path) -> Iterator[None]:
    """Remove the folder `part`, in which `path` is being made, whatever happens.

    Raises:
        OSError: that names `path`, if the disk is full.
    """
    with told_where(path, _AGAIN):
        try:
            yield
        finally:
            shutil.rmtree(part, ignore_errors=True)


def save_tensors(content: object, path: Path) -> None:
    """Write what `torch.load` reads, completely or not at all.

    Raises:
        OSError: if it cannot be written; torch itself raises a RuntimeError that names no file.
    """
    import torch

    with replacing(path) as part:
        try:
            torch.save(content, part)
        except RuntimeError as error:
            raise OSError(
                f"{path} cannot be written whole, as on a full disk: make room, {_AGAIN}"
            ) from error
