"""Write files completely or not at all."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; the file written there is flushed and replaces `path`.

    On an error the temporary file is removed and `path` is left unchanged.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    try:
        yield part
        with open(part, "rb") as file:
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


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
                f"{path} cannot be written whole, as on a full disk: make room, then give the same "
                f"command again"
            ) from error


@contextmanager
def told_where(path: Path) -> Iterator[None]:
    """Add `path` to the message of a full disk, and that the same command resumes."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise OSError(
                f"{path}: {os.strerror(error.errno)}; make room, the same command resumes from "
                f"what is there"
            ) from error
        raise
