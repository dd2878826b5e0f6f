"""Annotations, paths and a fingerprint of any dataset of images."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import Subset

from uic_plugin.data.listed import ListedImages

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")


class BadImageError(ValueError):
    """An image that cannot be read; the message names the file."""

    def __init__(self, message: str) -> None:
        # A loader's worker wraps the message in its traceback: keep the last line.
        super().__init__(message.strip().splitlines()[-1].split("BadImageError: ")[-1])


def samples_of(dataset: Any) -> Sequence[tuple[str, int]]:
    """Return the pairs (path, annotation) of a dataset of torchvision's kind, of others nothing."""
    samples = getattr(dataset, "samples", None)
    if not isinstance(samples, Sequence) or not samples:
        return ()
    first = samples[0]
    is_pair = isinstance(first, tuple | list) and len(first) == 2
    return samples if is_pair and isinstance(first[0], str | os.PathLike) else ()


def annotations_of(dataset: Any) -> np.ndarray | None:
    """Return the annotated classes, (N,), or None if the dataset has none.

    `samples` has priority over `targets`: a fraction of an image folder changes only the former.
    """
    samples = samples_of(dataset)
    if samples:
        return np.asarray([target for _, target in samples])
    if hasattr(dataset, "h5_path"):
        return np.asarray([target for _, _, target in dataset._data])
    for name in ("targets", "labels"):
        values = getattr(dataset, name, None)
        if values is not None and len(values) == len(dataset):
            return np.asarray(values)
    return None


def path_of(dataset: Any, index: int) -> str:
    """Return the path of an image, or a name with its index if it is no file of its own."""
    if isinstance(dataset, Subset):
        return path_of(dataset.dataset, dataset.indices[index])
    samples = samples_of(dataset)
    if samples:
        return str(samples[index][0])
    if isinstance(dataset, ListedImages):
        name = dataset.name(index)
        return str(dataset.root / name) if dataset.names_are_paths else name
    if hasattr(dataset, "h5_path"):
        return f"{dataset.h5_path}: {'/'.join(dataset._data[index][:2])}"
    if isinstance(getattr(dataset, "images", None), list):
        return str(Path(dataset.root) / dataset.images[index])
    return f"image {index} of {type(dataset).__name__}"


def relative_paths(dataset: Any) -> list[str] | None:
    """Return the paths of the images below the dataset's folder, with `/`; None without files."""
    if isinstance(dataset, ListedImages):
        return dataset.names()
    if hasattr(dataset, "h5_path"):
        return [f"{folder}/{name}" for folder, name, _ in dataset._data]
    samples = samples_of(dataset)
    if samples:
        root = str(getattr(dataset, "root", ""))
        return [os.path.relpath(path, root).replace(os.sep, "/") for path, _ in samples]
    if isinstance(getattr(dataset, "images", None), list):
        return [str(name).replace(os.sep, "/") for name in dataset.images]
    return None


def fingerprint_of(dataset: Any) -> str:
    """Return 16 hexadecimal digits that identify the list of images and their order.

    For files they depend on the paths below the dataset's folder, so that the folder may move; for
    arrays on their content; for anything else on its type and length.
    """
    if isinstance(dataset, ListedImages):
        return dataset.fingerprint
    paths = relative_paths(dataset)
    if paths is not None:
        return names_fingerprint(paths)
    digest = hashlib.blake2b(str(len(dataset)).encode(), digest_size=8)
    if isinstance(getattr(dataset, "data", None), np.ndarray):
        digest.update(np.ascontiguousarray(dataset.data).data)
    else:
        digest.update(type(dataset).__name__.encode())
    return digest.hexdigest()


def names_fingerprint(names: Sequence[str]) -> str:
    """Return the fingerprint of a dataset of files with these paths, in this order."""
    digest = hashlib.blake2b(str(len(names)).encode(), digest_size=8)
    for name in names:
        digest.update(b"\0" + name.encode(errors="surrogateescape"))
    return digest.hexdigest()


def sort_files(dataset: Any) -> None:
    """Sort a flat folder's files and drop those that are not images.

    The host lists them in the file system's order, so that an image's index would differ between
    machines and every other file would be opened as an image.
    """
    if isinstance(getattr(dataset, "images", None), list):
        dataset.images = sorted(
            name for name in dataset.images if str(name).lower().endswith(IMAGE_SUFFIXES)
        )
