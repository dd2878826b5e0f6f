"""Index files: the list of a folder's images, so that a run need not walk the file system.

    write_index(Path("train"), Path("train.index"))
    index = read_index(Path("train.index"))
    index.name(7)                                  # "n01440764/n01440764_10026.JPEG"

An index is an Arrow file with one column of bytes, `path`, in the order in which a folder of images
is read. The metadata of its schema hold the class folders with their sizes, and the fingerprint of
the list. The file is mapped into memory, where processes share it.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from uic_plugin.data.images import IMAGE_SUFFIXES
from uic_plugin.data.listed import ListedImages, decode
from uic_plugin.data.walk import class_folders_of, walk_folders
from uic_plugin.files import replacing

if TYPE_CHECKING:
    import pyarrow as pa

_FORMAT = b"uic image index 2"
_MAGIC = b"ARROW1"  # an Arrow file begins with it
_ROWS = 1 << 16  # names of a record batch


class ImageIndex:
    """Names of images, in memory that all processes of a machine share.

    Args:
        path: of the file.
        names: (N,) paths below the folder, as bytes.
        classes: class folders in order, each with its number of images; none in a flat folder.
        fingerprint: of the list, equal to that of the folder itself.

    Attributes:
        classes: names of the class folders.
        sizes: images in each of them.
    """

    def __init__(
        self, path: Path, names: pa.ChunkedArray, classes: list[tuple[str, int]], fingerprint: str
    ) -> None:
        self.path, self.fingerprint = path, fingerprint
        self.classes = [name for name, _ in classes]
        self.sizes = [size for _, size in classes]
        self._names = names

    def __len__(self) -> int:
        return len(self._names)

    def name(self, number: int) -> str:
        """Return the path of an image below the folder, with forward slashes."""
        return str(self._names[int(number)].as_py(), "utf-8", "surrogateescape")

    def names(self) -> Iterator[str]:
        """Iterate over all names, in order."""
        for chunk in self._names.iterchunks():
            yield from (str(name, "utf-8", "surrogateescape") for name in chunk.to_pylist())

    def targets(self) -> np.ndarray:
        """Return the class of each image by its folder, (N,) int32; -1 in a flat folder."""
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
        progress: called with the number of class folders done, and of all.

    Returns:
        Number of images.

    Raises:
        FileNotFoundError: without a folder, or without images in it.
        ValueError: for images beside class folders.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: there is no such folder of images")
    return save_index(out, folder_groups(folder, progress), f"{folder}: ")


def folder_groups(
    folder: Path, progress: Callable[[int, int], None] = lambda done, total: None
) -> Iterator[tuple[str, Iterable[str]]]:
    """Iterate over class folders, or "" for a flat folder, each with the paths of its images.

    Args:
        folder: the folder.
        progress: called with the number of class folders done, and of all.

    Raises:
        ValueError: for images beside class folders.
    """
    classes = class_folders_of(folder)
    beside = next(iter(_images(os.listdir(folder))), None) if classes else None
    if beside is not None:
        raise ValueError(
            f"{folder} holds images, as {beside}, beside subfolders, as {classes[0]}/: put all "
            f"images into subfolders, or all into one folder without any"
        )
    for number, name in enumerate(classes):
        yield name, _below(folder, name)
        progress(number + 1, len(classes))
    if not classes:
        yield "", sorted(_images(os.listdir(folder)))


def save_index(out: Path, groups: Iterable[tuple[str, Iterable[str]]], said: str = "") -> int:
    """Write an index of known names.

    Args:
        out: the file.
        groups: class folders ("" for a flat folder), each with its names below the root, in order.
        said: begins the message if there is no image.

    Returns:
        Number of images.

    Raises:
        FileNotFoundError: if there is no image.
        ValueError: for a name with a zero byte.
    """
    import pyarrow as pa

    sizes: list[tuple[str, int]] = []
    schema = pa.schema([pa.field("path", pa.binary(), nullable=False)])
    with replacing(out) as part:
        body = part.with_name(part.name + ".names")
        try:
            encoded = _encoded(groups, sizes)
            with pa.ipc.new_file(str(body), schema) as writer:
                while rows := list(itertools.islice(encoded, _ROWS)):
                    writer.write_batch(pa.record_batch([pa.array(rows, pa.binary())], schema))
            table = _mapped(body)
            if not len(table):
                raise FileNotFoundError(f"{said}no images there ({' '.join(IMAGE_SUFFIXES)})")
            facts = {
                "format": _FORMAT,
                "classes": json.dumps([] if sizes[0][0] == "" else sizes),
                "fingerprint": _digest(table["path"]),
            }
            with pa.ipc.new_file(str(part), schema.with_metadata(facts)) as writer:
                writer.write_table(table)
        finally:
            body.unlink(missing_ok=True)
    return len(table)


def _encoded(
    groups: Iterable[tuple[str, Iterable[str]]], sizes: list[tuple[str, int]]
) -> Iterator[bytes]:
    """Iterate over all names as bytes, and append each group with its size to `sizes`."""
    for group, names in groups:
        count = 0
        for name in names:
            encoded = name.encode(errors="surrogateescape")
            if b"\0" in encoded:
                raise ValueError(f"{name!r} has a zero byte in it")
            yield encoded
            count += 1
        sizes.append((group, count))


def read_index(path: Path) -> ImageIndex:
    """Map an index file into memory.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if it is not an index, or damaged.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such index; 'uic data index' makes one")
    stat = path.stat()
    return _read_index(path, stat.st_mtime_ns, stat.st_size)


@functools.lru_cache(maxsize=2)  # a starting run asks for it several times
def _read_index(path: Path, changed: int, size: int) -> ImageIndex:
    with open(path, "rb") as file:
        is_arrow = file.read(len(_MAGIC)) == _MAGIC
    try:
        index = _checked(path) if is_arrow else None
    except Exception as error:  # pyarrow raises many kinds for a damaged file
        raise ValueError(f"{path} is damaged: make it anew with 'uic data index'") from error
    if index is None:
        raise ValueError(
            f"{path} is no index of images that this version reads: make it with 'uic data index'"
        )
    return index


def _checked(path: Path) -> ImageIndex | None:
    """Return the index in an Arrow file; None if the file is of another kind."""
    table = _mapped(path)
    table.validate(full=True)
    facts = table.schema.metadata or {}
    if facts.get(b"format") != _FORMAT:
        return None
    classes = [(str(name), int(size)) for name, size in json.loads(facts[b"classes"])]
    index = ImageIndex(path, table["path"], classes, _digest(table["path"]))
    fits = not classes or (min(index.sizes) >= 0 and sum(index.sizes) == len(index))
    if not fits or facts[b"fingerprint"] != index.fingerprint.encode():
        raise ValueError("the names do not fit the fingerprint or the class folders")
    return index


def _mapped(path: Path) -> pa.Table:
    """Map an Arrow file into memory, without reading it."""
    import pyarrow as pa

    return pa.ipc.open_file(pa.memory_map(str(path))).read_all()


def _digest(names: pa.ChunkedArray) -> str:
    """Return the fingerprint that `fingerprint_of` gives a folder of the same images."""
    import pyarrow as pa
    import pyarrow.compute as pc

    digest = hashlib.blake2b(str(len(names)).encode(), digest_size=8)
    for chunk in names.iterchunks():
        if len(chunk):
            joined = pc.binary_join(pa.ListArray.from_arrays([0, len(chunk)], chunk), b"\0")
            digest.update(b"\0")
            digest.update(joined[0].as_buffer())
    return digest.hexdigest()


class IndexedImages(ListedImages):
    """The images of an index file.

    Args:
        root, transform, with_number: see `ListedImages`.
        index: their names.
        labelled: whether to use their classes.
    """

    def __init__(
        self,
        root: Path,
        transform: Callable[[Image.Image], Any],
        index: ImageIndex,
        *,
        labelled: bool = True,
        with_number: bool = False,
    ) -> None:
        super().__init__(root, transform, with_number=with_number)
        self.index, self.fingerprint = index, index.fingerprint
        self.targets = index.targets() if labelled else np.full(len(index), -1, np.int8)

    def load(self, number: int) -> Image.Image:
        """Return an image, decoded, RGB."""
        return decode(self.root / self.name(number))

    def name(self, number: int) -> str:
        """Return its path below the root."""
        name = self.index.name(number)
        if name.startswith("/") or ".." in name.split("/"):
            raise ValueError(f"{self.index.path}: {name!r} lies outside of the images' folder")
        return name

    def names(self) -> list[str]:
        """Return all paths below the root."""
        return list(self.index.names())


def _below(root: Path, name: str) -> Iterator[str]:
    """Iterate over the images of a class folder, as torchvision's ImageFolder orders them."""
    for folder, names in sorted(walk_folders(root / name, root)):
        below = Path(folder).relative_to(root).as_posix()
        for file in sorted(_images(names)):
            yield f"{below}/{file}"


def _images(names: list[str]) -> Iterator[str]:
    return (name for name in names if name.lower().endswith(IMAGE_SUFFIXES))
