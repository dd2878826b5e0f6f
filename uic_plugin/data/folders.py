"""Lists of images to label: all below a folder, or those of a split's CSV file."""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from uic_plugin.data.held_out import SplitImages
from uic_plugin.data.images import IMAGE_SUFFIXES
from uic_plugin.data.packed import PackedByPath, is_packed, open_packed
from uic_plugin.data.walk import walk_folders

# what cameras and telephones write, and Pillow or this program does not read
_OTHER_PHOTOGRAPHS = (
    *(".heic", ".heif", ".avif", ".jxl", ".jp2", ".gif"),
    *(".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf"),
)


@dataclass(frozen=True)
class ImageList:
    """Images by their paths.

    Attributes:
        root: the folder, or a packed one.
        names: paths below it, with forward slashes, sorted.
        annotations: (N,) annotated classes, or None. They are used in figures only.
    """

    root: Path
    names: list[str]
    annotations: np.ndarray | None

    @property
    def originals(self) -> Path:
        """The folder of the image files; a packed folder's may be gone."""
        return open_packed(self.root).folder if is_packed(self.root) else self.root


def list_images(source: Path) -> ImageList:
    """List the images of a folder, subfolders included, a packed one, or a split's CSV file.

    Raises:
        FileNotFoundError: if there is no such folder or file, or no image in it.
        ValueError: for a file that is not a split.
    """
    if source.suffix == ".csv":
        if not source.is_file():
            raise FileNotFoundError(f"{source}: there is no such split file")
        split = SplitImages(source, lambda image: image)
        order = np.argsort(np.asarray(split.names()), kind="stable")
        names = [split.name(number) for number in order]
        return ImageList(split.root, names, split.targets[order])
    names = PackedByPath(source).names if is_packed(source) else images_below(source)
    return ImageList(source, names, folder_annotations(names))


def check_outside(out: Path, images: Path, option: str = "--out") -> None:
    """Refuse to write pictures among the images, where the next command would take them for some.

    Args:
        out: folder to write to.
        images: the folder of images, a packed one, or a split's CSV file.
        option: which says where.

    Raises:
        ValueError: if `out` lies in the folder, in that of a packed folder's originals, or in that
            of a split's images; for a file that is not a split.
        FileNotFoundError: if an image of a split is missing.
    """
    for folder in _folders_of(images):
        if folder.is_dir() and out.resolve().is_relative_to(folder.resolve()):
            raise ValueError(
                f"{out} lies in {folder}, and its pictures would be among the images the next "
                f"time: give a folder elsewhere, {option}"
            )


def _folders_of(images: Path) -> list[Path]:
    """Return the folders in which the images lie that a folder or a split's file stands for."""
    if is_packed(images):
        return [images, open_packed(images).folder]
    is_split = images.suffix == ".csv" and images.is_file()
    return [list_images(images).root if is_split else images]


def images_below(root: Path) -> list[str]:
    """Return the paths of all images below a folder, with forward slashes, sorted; follow links.

    A link to a folder that it lies in is left out.
    A warning counts photographs of other kinds.

    Raises:
        FileNotFoundError: if there is no such folder, or no image in it.
    """
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: there is no such folder of images")
    names, others = [], Counter[str]()
    for folder, files in walk_folders(root):
        for name in files:
            suffix = os.path.splitext(name)[1].lower()
            if suffix in IMAGE_SUFFIXES:
                names.append(Path(folder, name).relative_to(root).as_posix())
            elif suffix in _OTHER_PHOTOGRAPHS:
                others[suffix] += 1
    names.sort()
    if others:
        warnings.warn(
            f"left out below {root}, photographs of kinds that are not read: {others.total()} "
            f"({' '.join(sorted(others))}); convert them to JPEG or PNG",
            stacklevel=2,
        )
    if not names and is_packed(root):
        raise FileNotFoundError(
            f"{root} is a packed folder, and this needs image files: give the folder that it was "
            f"made of, {open_packed(root).folder}"
        )
    if not names:
        raise FileNotFoundError(f"{root}: no images there ({' '.join(IMAGE_SUFFIXES)})")
    return names


def folder_annotations(paths: Sequence[str]) -> np.ndarray | None:
    """Return the index of each image's folder, (N,), or None if some lie in no folder."""
    folders = [path.rpartition("/")[0] for path in paths]
    names = sorted(set(folders))
    if "" in names or len(names) < 2:
        return None
    number = {name: i for i, name in enumerate(names)}
    return np.asarray([number[folder] for folder in folders])
