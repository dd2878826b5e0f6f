"""The images and class names that an export writes."""

from __future__ import annotations

import os
import re
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from uic_plugin.data.labels import LabelTable
from uic_plugin.data.listed import opened
from uic_plugin.data.originals import image_folder
from uic_plugin.data.views import BAD_IMAGE_ERRORS

_LONGEST = 120  # bytes of a class's folder name; file systems take 255


@dataclass(frozen=True)
class Exported:
    """The images and classes of an export.

    Attributes:
        table: the N images, by default without those that are marked as wrong or hidden.
        folder: their folder, absolute.
        classes: the C numbers of classes, ascending.
        names: C different names, as people have given them.
        directories: C different names that are valid for folders.
        target: (N,) index of each image's class in `classes`.
        rows: (N,) rows of the images in the label file.
        left_out: number of images that are not written.
    """

    table: LabelTable
    folder: Path
    classes: list[int]
    names: list[str]
    directories: list[str]
    target: np.ndarray
    rows: np.ndarray
    left_out: int

    def name_of(self, row: int) -> str:
        """Return the name of an image's class."""
        return self.names[int(self.target[row])]


def select(table: LabelTable, folder: Path, *, everything: bool = False) -> Exported:
    """Select the images of an export and name their classes.

    Args:
        table: a label file.
        folder: the folder of images; also packed, or a split's .csv.
        everything: include images marked as wrong, and hidden classes.

    Raises:
        FileNotFoundError: if an image is missing, or the folder that images were packed from.
        ValueError: if nothing is left.
    """
    kept = np.ones(len(table), bool)
    if not everything:
        for name in ("wrong", "hidden"):
            kept &= ~table.marked(name)
    rows = np.flatnonzero(kept)
    if not len(rows):
        raise ValueError("no image is left to export: all are hidden or marked as wrong (--all)")
    chosen = LabelTable(
        [table.paths[row] for row in rows],
        table.labels[rows],
        table.confidence[rows],
        table.entropy[rows],
        {name: values[rows] for name, values in table.extra.items()},
    )
    folder = image_folder(folder)
    missing = [path for path in chosen.paths if not (folder / path).is_file()]
    if missing:
        raise FileNotFoundError(
            f"{len(missing)} of the {len(chosen)} images are not in {folder}, as {missing[0]!r}: "
            f"give the folder that the labels were made of, or remove their rows from the labels"
        )
    classes, target = np.unique(chosen.labels, return_inverse=True)
    given = {int(c): chosen.names.get(int(c), "") for c in classes}
    names, directories = _different(given), unique_names(given)
    return Exported(
        chosen,
        folder.resolve(),
        [int(c) for c in classes],
        [names[int(c)] for c in classes],
        [directories[int(c)] for c in classes],
        target,
        rows,
        len(table) - len(rows),
    )


def _different(names: dict[int, str]) -> dict[int, str]:
    """Return names that differ: one that several classes have is followed by their numbers."""
    count = Counter(names.values())
    found = {}
    for number, name in names.items():
        shown = name or f"class_{number:04}"
        found[number] = f"{shown} ({number})" if name and count[name] > 1 else shown
    return found


def unique_names(names: dict[int, str]) -> dict[int, str]:
    """Return names that differ, also ignoring case, and that every file system supports.

    Args:
        names: names of classes; a class with an empty one becomes, for example, `class_0007`.
    """
    taken: set[str] = set()
    found = {}
    for number, name in names.items():
        safe = re.sub(r'[\x00-\x1f<>:"/\\|?*\ud800-\udfff]+', "_", name).strip(" .")
        safe = safe.encode()[:_LONGEST].decode(errors="ignore").strip(" .")
        safe = safe or f"class_{number:04}"
        if safe.lower() in taken:
            safe = f"{safe}_{number}"
        while safe.lower() in taken:
            safe += "_"
        taken.add(safe.lower())
        found[number] = safe
    return found


def link_or_copy(source: Path, target: Path, *, copy: bool) -> None:
    """Link to an image, or copy it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if copy:
        shutil.copyfile(source, target)
    else:
        os.symlink(source, target)


@contextmanager
def readable(path: Path) -> Iterator[Image.Image]:
    """Open an image that an export has to read.

    Raises:
        ValueError: if it is damaged.
    """
    try:
        with opened(path) as image:
            yield image
    except FileNotFoundError:
        raise
    except BAD_IMAGE_ERRORS as error:
        raise ValueError(
            f"{path} is no image that can be read ({error}): remove its row from the labels, or "
            f"mark it as wrong on the page"
        ) from error


def flat_names(paths: list[str]) -> list[str]:
    """Return different names for one folder: the files' names, or else their whole paths."""
    short = [path.rpartition("/")[2] for path in paths]
    count: dict[str, int] = {}
    for name in short:
        count[name.lower()] = count.get(name.lower(), 0) + 1
    taken: set[str] = set()
    found = []
    for path, name in zip(paths, short, strict=True):
        flat = name if count[name.lower()] == 1 else path.replace("/", "__")
        stem, dot, suffix = flat.rpartition(".")
        if len(os.fsencode(flat)) > 240:
            stem = os.fsdecode(os.fsencode(stem)[-200:])
            flat = f"{stem}{dot}{suffix}"
        number = 1
        while flat.lower() in taken:
            number += 1
            flat = f"{stem}_{number}{dot}{suffix}"
        taken.add(flat.lower())
        found.append(flat)
    return found
