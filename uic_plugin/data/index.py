"""Index files: the list of a folder's images, so that a start does not walk the file system.

    write_index(Path("train"), Path("train.index"))
    index = read_index(Path("train.index"))
    index.name(7)                                  # "n01440764/n01440764_10026.JPEG"

One line of JSON (format, number of images, class folders with their sizes, fingerprint), then all
names, each with a zero byte before it, in the order in which a folder of images is read. The file
is mapped into memory, where processes share it; of its own each has 12 bytes an image, for places
and classes.
"""

from __future__ import annotations

import functools
import hashlib
import json
import mmap
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from uic_plugin.data.images import IMAGE_SUFFIXES
from uic_plugin.data.listed import ListedImages, decode
from uic_plugin.files import replacing

_FORMAT = "uic image index 1"
_LONGEST_HEADER = 1 << 24
_BLOCK = 1 << 24  # bytes of names handled at once


class ImageIndex:
    """Names of images, in memory that all processes of a machine share.

    Attributes:
        path: of the file.
        classes: names of the class folders; none in a flat folder.
        sizes: images in each of them.
        fingerprint: of the list, as of the folder itself.
    """

    def __init__(
        self,
        path: Path,
        names: mmap.mmap | bytes,
        start: int,
        header: dict[str, Any],
        fingerprint: str,
    ) -> None:
        self.path, self.fingerprint = path, fingerprint
        self.classes = [name for name, _ in header["classes"]]
        self.sizes = [size for _, size in header["classes"]]
        self._names = names
        self._ends = _ends(np.frombuffer(names, np.uint8)[start:], header["images"]) + start

    def __len__(self) -> int:
        return len(self._ends) - 1

    def name(self, number: int) -> str:
        """Path of an image below the folder, with forward slashes."""
        begin, end = int(self._ends[number]) + 1, int(self._ends[number + 1])
        return self._names[begin:end].decode(errors="surrogateescape")

    def names(self) -> Iterator[str]:
        """All names, in order."""
        return map(self.name, range(len(self)))

    def targets(self) -> np.ndarray:
        """Class of each image by its folder, (N,) int32; -1 in a flat folder."""
        if not self.classes:
            return np.full(len(self), -1, np.int32)
        return np.repeat(np.arange(len(self.classes), dtype=np.int32), self.sizes)


def write_index(
    folder: Path, out: Path, progress: Callable[[int, int], None] = lambda done, total: None
) -> int:
    """Write the index of a folder of images, or of one with a subfolder per class.

    Args:
        folder: the folder.
        out: the file.
        progress: is told how many class folders of how many are done.

    Returns:
        Number of images.

    Raises:
        FileNotFoundError: without a folder, or without images in it.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: there is no such folder of images")
    classes = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir())

    def groups() -> Iterator[tuple[str, Iterable[str]]]:
        for number, name in enumerate(classes):
            yield name, _below(folder, name)
            progress(number + 1, len(classes))
        if not classes:
            yield "", sorted(_images(os.listdir(folder)))

    return save_index(out, groups())


def save_index(out: Path, groups: Iterable[tuple[str, Iterable[str]]]) -> int:
    """Write an index of names that are known already.

    Args:
        out: the file.
        groups: class folder ("" for a flat folder) and names below the root, in order.

    Returns:
        Number of images.

    Raises:
        FileNotFoundError: if there is no image.
        ValueError: for a name with a zero byte.
    """
    sizes: list[tuple[str, int]] = []
    with replacing(out) as part:
        body = part.with_name(part.name + ".names")
        try:
            with open(body, "wb") as file:
                for group, names in groups:
                    count = 0
                    for name in names:
                        encoded = name.encode(errors="surrogateescape")
                        if b"\0" in encoded:
                            raise ValueError(f"{name!r} has a zero byte in it")
                        file.write(b"\0" + encoded)
                        count += 1
                    sizes.append((group, count))
            total = sum(size for _, size in sizes)
            if not total:
                raise FileNotFoundError(f"no images there ({' '.join(IMAGE_SUFFIXES)})")
            header = {"format": _FORMAT, "images": total}
            header["classes"] = [] if sizes[0][0] == "" else sizes
            header["fingerprint"] = _digest(total, _file_blocks(body, 0))
            with open(part, "wb") as file:
                file.write(json.dumps(header).encode() + b"\n")
                for block in _file_blocks(body, 0):
                    file.write(block)
        finally:
            body.unlink(missing_ok=True)
    return total


def read_index(path: Path) -> ImageIndex:
    """Map an index file into memory.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if it is none, or damaged.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such index; 'uic data index' makes one")
    stat = path.stat()
    return _read_index(path, stat.st_mtime_ns, stat.st_size)


@functools.lru_cache(maxsize=2)  # a start asks for it several times
def _read_index(path: Path, changed: int, size: int) -> ImageIndex:
    with open(path, "rb") as file:
        line = file.readline(_LONGEST_HEADER)
        header = _checked_header(path, line)
        digest = _digest(header["images"], _file_blocks(path, len(line)))
        if digest != header["fingerprint"]:
            raise ValueError(f"{path} is damaged: its names do not have its fingerprint")
        names = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    return ImageIndex(path, names, len(line), header, digest)


class IndexedImages(ListedImages):
    """The images of an index file.

    Args:
        root, transform, with_number: see `ListedImages`.
        index: their names.
        labelled: whether to look at their classes.
    """

    def __init__(
        self,
        root: Path,
        transform: Callable[[Any], Any],
        index: ImageIndex,
        *,
        labelled: bool = True,
        with_number: bool = False,
    ) -> None:
        super().__init__(root, transform, with_number=with_number)
        self.index, self.fingerprint = index, index.fingerprint
        self.targets = index.targets() if labelled else np.full(len(index), -1, np.int8)

    def load(self, number: int) -> Image.Image:
        """An image, decoded, RGB."""
        return decode(self.root / self.name(number))

    def name(self, number: int) -> str:
        """Its path below the root."""
        name = self.index.name(number)
        if name.startswith("/") or ".." in name.split("/"):
            raise ValueError(f"{self.index.path}: {name!r} lies outside of the images' folder")
        return name

    def names(self) -> list[str]:
        """All paths below the root."""
        return list(self.index.names())


def _below(root: Path, name: str) -> Iterator[str]:
    """Images of a class folder, as torchvision's ImageFolder orders them."""
    for folder, _, names in sorted(os.walk(root / name, followlinks=True)):
        place = Path(folder).relative_to(root).as_posix()
        for file in sorted(_images(names)):
            yield f"{place}/{file}"


def _images(names: list[str]) -> Iterator[str]:
    return (name for name in names if name.lower().endswith(IMAGE_SUFFIXES))


def _checked_header(path: Path, line: bytes) -> dict[str, Any]:
    try:
        header = json.loads(line)
        classes = [(str(name), size) for name, size in header["classes"]]
        count, known = header["images"], header["format"] == _FORMAT
        known = known and isinstance(header["fingerprint"], str)
        numbers = [count, *(size for _, size in classes)]
        fits = not classes or sum(size for _, size in classes) == count
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{path} is no index of images: make it with 'uic data index'") from error
    if not known or not fits or not all(type(n) is int and n >= 0 for n in numbers) or not count:
        raise ValueError(f"{path} is an index of images in a form that this version does not read")
    return {**header, "classes": classes}


def _digest(count: int, blocks: Iterable[bytes]) -> str:
    """The fingerprint that `fingerprint_of` gives a folder of the same images."""
    digest = hashlib.blake2b(str(count).encode(), digest_size=8)
    for block in blocks:
        digest.update(block)
    return digest.hexdigest()


def _file_blocks(path: Path, start: int) -> Iterator[bytes]:
    with open(path, "rb") as file:
        file.seek(start)
        while block := file.read(_BLOCK):
            yield block


def _ends(names: np.ndarray, count: int) -> np.ndarray:
    """Where each name's zero byte is, and the end of the last name, (count + 1,) int64."""
    ends = np.empty(count + 1, np.int64)
    done = 0
    for start in range(0, len(names), _BLOCK):
        zeros = np.flatnonzero(names[start : start + _BLOCK] == 0) + start
        if done + len(zeros) > count:
            raise ValueError(f"an index of {count} images has more names than that")
        ends[done : done + len(zeros)] = zeros
        done += len(zeros)
    if done != count or not count or ends[0] != 0:
        raise ValueError(f"an index of {count} images has {done} names")
    ends[count] = len(names)
    return ends
