"""A folder of decoded images, mapped into memory, and the dataset that reads it.

    store = PackStore.open(Path("packed"))
    store.raw(7)                                   # (H, W, 3) uint8, a view of mapped memory
    store.raw_batch([7, 3, 7])                     # (3, H, W, 3) if all images have one size

    pack.json          settings, unreadable images, where the originals are, their fingerprint
    images.index       paths and class folders, see `uic_plugin.data.index`
    pixels.npy         (N, H, W, 3) uint8 if all images have one size, else their bytes in a row
    offsets.npy        (N,) int64 byte at which an image begins in `pixels.npy`, behind its header
    sizes.npy          (N, 2) int32 height and width; 0, 0 for an unreadable image, which has no
                       pixels
    annotations.npy    (N,) int32 class by folder, -1 without class folders

All arrays are in numpy's format: `numpy.load(FILE, mmap_mode="r")` opens them without this package.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from uic_plugin.data.images import names_fingerprint
from uic_plugin.data.index import ImageIndex, read_index
from uic_plugin.data.listed import ListedImages, decode

ABOUT_FILE, LIST_FILE, PIXELS_FILE = "pack.json", "images.index", "pixels.npy"
OFFSETS_FILE, SIZES_FILE, ANNOTATIONS_FILE = "offsets.npy", "sizes.npy", "annotations.npy"
_FORMAT = "uic pack 1"


@dataclass(frozen=True)
class PackAbout:
    """What a packed folder was made of, and how.

    Attributes:
        fingerprint: of the list of images, equal to that of the folder itself.
        size, square: see `PackSettings`.
        folder: the originals, absolute.
        files: digest of the originals' sizes and times.
        bad: numbers of unreadable images and the reasons.
    """

    fingerprint: str
    size: int
    square: bool
    folder: str
    files: str = ""
    bad: list[tuple[int, str]] = field(default_factory=list)

    @property
    def identity(self) -> tuple[object, ...]:
        """Return what two packed folders of the same images and settings have in common."""
        return self.fingerprint, self.size, self.square, self.folder

    def write(self, path: Path) -> None:
        """Write it as JSON."""
        content = {"format": _FORMAT, **dataclasses.asdict(self)}
        path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> PackAbout:
        """Read it.

        Raises:
            ValueError: if it is damaged, or of another version.
        """
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            version = content.pop("format")
            bad = [(int(number), str(reason)) for number, reason in content.pop("bad")]
            about = cls(bad=bad, **content)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"{path} is damaged: pack the images anew") from error
        if version != _FORMAT:
            raise ValueError(f"{path} is of version {version!r}, this program reads {_FORMAT!r}")
        return about


def is_packed(path: Path) -> bool:
    """Return whether a path is a folder that `uic data pack` wrote."""
    return (path / ABOUT_FILE).is_file()


class PackStore:
    """Decoded images in a folder; its pages are shared by all processes that open it.

    A copy in another process, as by `pickle`, opens the folder there.

    Args:
        path: the folder.
        about: what it was made of.
        index: paths and class folders.
        arrays: pixels, offsets, sizes and annotations.
    """

    def __init__(
        self, path: Path, about: PackAbout, index: ImageIndex, arrays: Sequence[np.ndarray]
    ) -> None:
        self.path, self.about, self.index = path, about, index
        self.pixels, self.offsets, self.sizes, self.annotations = arrays
        self._bytes = self.pixels.reshape(-1)
        self._reasons = dict(about.bad)

    @classmethod
    def open(cls, path: Path) -> PackStore:
        """Map a packed folder into memory.

        Raises:
            FileNotFoundError: if there is none.
            ValueError: if it is damaged.
        """
        if not is_packed(path):
            raise FileNotFoundError(f"{path}: no packed images there; 'uic data pack' makes them")
        about = PackAbout.read(path / ABOUT_FILE)
        index = read_index(path / LIST_FILE)
        arrays = [_mapped(path / n) for n in (PIXELS_FILE, OFFSETS_FILE, SIZES_FILE)]
        arrays.append(_mapped(path / ANNOTATIONS_FILE))
        pixels, *rest = arrays
        lengths = {len(index), *map(len, rest)}
        last = int(rest[0][-1]) + 3 * int(rest[1][-1].prod(dtype=np.int64)) if len(index) else 0
        if len(lengths) > 1 or last != pixels.size or index.fingerprint != about.fingerprint:
            raise ValueError(f"{path} is damaged: its files do not fit together; pack anew")
        return cls(path, about, index, arrays)

    def __reduce__(self) -> tuple[Any, ...]:
        return PackStore.open, (self.path,)

    def __len__(self) -> int:
        return len(self.offsets)

    @property
    def folder(self) -> Path:
        """The folder of the originals, which may be gone."""
        return Path(self.about.folder)

    @property
    def is_uniform(self) -> bool:
        """Whether all images with pixels have one size."""
        return self.pixels.ndim == 4

    def raw(self, number: int) -> np.ndarray:
        """Return an image's pixels, (H, W, 3) uint8, as a read-only view of mapped memory.

        Raises:
            OSError: for an image that could not be read when it was packed.
        """
        height, width = self.sizes[number].tolist()
        if not height:
            raise OSError(self._reasons.get(number % len(self), "it could not be read"))
        start = int(self.offsets[number])
        return self._bytes[start : start + 3 * height * width].reshape(height, width, 3)

    def raw_batch(self, numbers: Sequence[int] | np.ndarray) -> np.ndarray | list[np.ndarray]:
        """Return the pixels of many images.

        Args:
            numbers: B numbers of images, in any order, also repeated.

        Returns:
            A new (B, H, W, 3) uint8 array if all images of the store have one size; else a list
            of what `raw` returns.

        Raises:
            OSError: if one of the images could not be read when it was packed.
        """
        if not self.is_uniform:
            return [self.raw(int(number)) for number in numbers]
        numbers = np.asarray(numbers, np.int64)
        if self._reasons:
            for number in numbers[self.sizes[numbers, 0] == 0].tolist():
                self.raw(number)
        return self.pixels[self.offsets[numbers] // int(np.prod(self.pixels.shape[1:]))]

    def image(self, number: int) -> Image.Image:
        """Return an image, RGB; see `raw`."""
        return Image.fromarray(self.raw(number))


def _mapped(path: Path) -> np.ndarray:
    """Map a `.npy` file into memory, as a plain array: views of a `memmap` take microseconds."""
    try:
        return np.asarray(np.load(path, mmap_mode="r"))
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} is missing: pack the images anew") from None
    except (ValueError, OSError, EOFError) as error:
        raise ValueError(f"{path} is damaged ({error}): pack the images anew") from error


class PackedImages(ListedImages):
    """The images of a packed folder, or of a part of it.

    Args:
        store: the packed folder.
        transform, with_number: see `ListedImages`.
        labelled: whether to use its annotations.
        originals: the folder that was packed, where it is still in use: an unreadable image is
            read there again and fails as it always did.

    Attributes:
        rows: (n,) numbers of the images within the store; None for all.
    """

    def __init__(
        self,
        store: PackStore,
        transform: Callable[[Image.Image], Any],
        *,
        labelled: bool = True,
        with_number: bool = False,
        originals: Path | None = None,
    ) -> None:
        super().__init__(originals or store.folder, transform, with_number=with_number)
        self.originals = originals
        self.store, self.fingerprint = store, store.about.fingerprint
        self.rows: np.ndarray | None = None
        self.targets = np.full(len(store), -1, np.int8)
        if labelled:
            self.targets = np.array(store.annotations)  # mapped ones cannot be written to

    def keep(self, rows: np.ndarray) -> None:
        """Keep only some of the images, in a given order.

        Args:
            rows: their numbers, (n,) integers.
        """
        self.rows = rows if self.rows is None else self.rows[rows]
        self.targets = self.targets[rows]
        self.fingerprint = names_fingerprint(self.names())

    def load(self, number: int) -> Image.Image:
        """Return an image, RGB.

        Raises:
            OSError: if it could not be read when it was packed.
        """
        row = self.row(number)
        if self.originals is not None and not self.store.sizes[row, 0]:
            return decode(self.originals / self.store.index.name(row))
        return self.store.image(row)

    def raw(self, number: int) -> np.ndarray:
        """Return an image's pixels, (H, W, 3) uint8, without a transform; see `PackStore.raw`."""
        return self.store.raw(self.row(number))

    def raw_batch(self, numbers: Sequence[int] | np.ndarray) -> np.ndarray | list[np.ndarray]:
        """Return the pixels of many images; see `PackStore.raw_batch`."""
        rows = np.asarray(numbers, np.int64)
        return self.store.raw_batch(rows if self.rows is None else self.rows[rows])

    def name(self, number: int) -> str:
        """Return its path below the folder that was packed."""
        return self.store.index.name(self.row(number))

    def names(self) -> list[str]:
        """Return all paths below the folder that was packed."""
        names = list(self.store.index.names())
        return names if self.rows is None else [names[row] for row in self.rows.tolist()]

    def row(self, number: int) -> int:
        """Return the number of an image within the store."""
        return int(number) if self.rows is None else int(self.rows[number])


def open_packed(path: Path) -> PackStore:
    """Open a packed folder; a starting run asks for it several times. See `PackStore.open`."""
    if not is_packed(path):
        return PackStore.open(path)  # which says so
    return _open_packed(path.resolve(), (path / ABOUT_FILE).stat().st_mtime_ns)


@functools.lru_cache(maxsize=4)
def _open_packed(path: Path, changed: int) -> PackStore:
    return PackStore.open(path)


class PackedByPath:
    """The images of a packed folder by their paths below the folder that was packed.

    Args:
        path: the packed folder.

    Attributes:
        names: the paths, sorted as `images_below` sorts those of a folder.
    """

    def __init__(self, path: Path) -> None:
        self.store = open_packed(path)
        self._rows = {name: row for row, name in enumerate(self.store.index.names())}
        self.names = sorted(self._rows)

    def image(self, name: str) -> Image.Image:
        """Return an image, RGB; see `PackStore.raw`."""
        return self.store.image(self._rows[name])


def check_decoded_size(store: PackStore, crop: int) -> None:
    """Refuse images that were packed with fewer pixels than a crop has.

    Raises:
        ValueError: with the size to pack them with.
    """
    from uic_plugin.data.center import with_border

    if 0 < store.about.size < crop:
        raise ValueError(
            f"{store.path} was packed with --size {store.about.size}, the crops have {crop} "
            f"pixels: pack it with --size {with_border(crop)}, or set a crop_size of at most "
            f"{store.about.size}"
        )
