"""PASCAL VOC's folders, read by torchvision and checked before anything is trained on them.

    VOCDIR/VOC2007/{JPEGImages,Annotations,ImageSets/{Main,Segmentation},SegmentationClass}

Source: Everingham et al., The PASCAL Visual Object Classes Challenge, 2010, and its development
kit.
"""

from __future__ import annotations

import hashlib
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torchvision.datasets import VOCDetection, VOCSegmentation

from uic_plugin.data.images import BadImageError
from uic_plugin.data.voc_annotation import VOC_CLASSES, Objects, read_annotation

IGNORED = 255  # value of borders in a mask, which are left out
_YEARS = ("2007", "2008", "2009", "2010", "2011", "2012")


def find_voc(folder: Path, split: str, kind: str = "Main", year: str | None = None) -> Path:
    """Return the folder of one year, such as `VOCdevkit/VOC2007`.

    Args:
        folder: that folder, `VOCdevkit`, or the folder that `VOCdevkit` lies in.
        split: of images, for example trainval.
        kind: of split, Main or Segmentation.
        year: of the challenge; by default the earliest that has the split.

    Raises:
        FileNotFoundError: if there is none, or none with such a split, listing existing splits.
        ValueError: for a year that torchvision's readers do not support.
    """
    if year is not None and year not in _YEARS:
        raise ValueError(f"--year must be one of {', '.join(_YEARS)}, got {year!r}")
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: there is no such folder of PASCAL VOC")
    folder = folder.absolute()  # the name of a link counts, not that of its target
    names = [f"VOC{y}" for y in ([year] if year else _YEARS)]
    if folder.name.startswith("VOC2"):
        found = [folder] if folder.name in names else []
    else:
        devkit = folder if folder.name == "VOCdevkit" else folder / "VOCdevkit"
        found = [devkit / name for name in names if (devkit / name).is_dir()]
    found = [path for path in found if path.parent.name == "VOCdevkit"]
    if not found:
        raise FileNotFoundError(
            f"{folder}: expected VOCdevkit/{names[0]} there, with JPEGImages, Annotations and "
            f"ImageSets in it"
        )
    for path in found:
        if (path / "ImageSets" / kind / f"{split}.txt").is_file():
            return path
    splits = sorted(p.stem for p in (found[0] / "ImageSets" / kind).glob("*.txt"))
    splits = [name for name in splits if "_" not in name]
    raise FileNotFoundError(
        f"{found[0]} has no split {split!r} in ImageSets/{kind}: "
        f"{', '.join(splits) or 'no split at all'}"
    )


class VocObjects:
    """Images of a split with the objects in them.

    Args:
        folder: of one year, see `find_voc`.
        split: train, val, trainval or test.

    Attributes:
        names: of the images.
        objects: of each image.
        sizes: (width, height) of each image in pixels.

    Raises:
        FileNotFoundError: if an image or its annotation is missing.
        ValueError: for an empty split, or an impossible annotation, naming file and value.
    """

    def __init__(self, folder: Path, split: str) -> None:
        self.folder, self.split = folder, split
        self.reader = _reader(VOCDetection, folder, split)
        self.names = _checked_names(self.reader, folder, split, "annotation")
        self.objects: list[Objects] = []
        self.sizes: list[tuple[int, int]] = []
        fractional: list[str] = []
        for number in range(len(self.names)):
            objects, size = read_annotation(
                Path(self.reader.annotations[number]), Path(self.reader.images[number]), fractional
            )
            self.objects.append(objects)
            self.sizes.append(size)
        if fractional:
            warnings.warn(
                f"{len(fractional)} coordinates of {folder} are no whole numbers, as "
                f"{fractional[0]}; they are taken as they are",
                stacklevel=2,
            )

    def __len__(self) -> int:
        return len(self.names)

    @property
    def fingerprint(self) -> str:
        """Return 16 hexadecimal digits that identify images and objects."""
        digest = hashlib.blake2b(digest_size=8)
        for name, objects in zip(self.names, self.objects, strict=True):
            digest.update(name.encode())
            for part in (objects.boxes, objects.labels, objects.difficult):
                digest.update(part.numpy().tobytes())
        return digest.hexdigest()

    def image(self, number: int) -> Image.Image:
        """Return an image, RGB.

        Raises:
            BadImageError: if its size is not what its annotation says.
        """
        with Image.open(self.reader.images[number]) as file:
            image = file.convert("RGB")
        if image.size != self.sizes[number]:
            raise BadImageError(
                f"{self.reader.images[number]} has {image.size[0]} x {image.size[1]} pixels, its "
                f"annotation says {self.sizes[number][0]} x {self.sizes[number][1]}"
            )
        return image

    def presence(self) -> torch.Tensor:
        """Return (N, 20) float32: 1 present, 0 absent, NaN if all objects are difficult."""
        targets = torch.zeros(len(self), len(VOC_CLASSES))
        for row, objects in zip(targets, self.objects, strict=True):
            row[objects.labels] = math.nan
            row[objects.labels[~objects.difficult]] = 1
        return targets


class VocMasks:
    """Images of a split with the class of each pixel.

    Args:
        folder: of one year, see `find_voc`.
        split: train, val, trainval or test.

    Attributes:
        names: of the images.

    Raises:
        FileNotFoundError: if an image or its mask is missing.
        ValueError: for an empty split, or a mask of another size than its image.
    """

    def __init__(self, folder: Path, split: str) -> None:
        self.folder, self.split = folder, split
        self.reader = _reader(VOCSegmentation, folder, split)
        self.names = _checked_names(self.reader, folder, split, "mask")
        for image, mask in zip(self.reader.images, self.reader.masks, strict=True):
            with Image.open(image) as one, Image.open(mask) as other:
                if one.size != other.size:
                    raise ValueError(
                        f"{mask} has {other.size[0]} x {other.size[1]} pixels, its image has "
                        f"{one.size[0]} x {one.size[1]}"
                    )

    def __len__(self) -> int:
        return len(self.names)

    @property
    def fingerprint(self) -> str:
        """Return 16 hexadecimal digits that identify the list of images."""
        return hashlib.blake2b("\0".join(self.names).encode(), digest_size=8).hexdigest()

    def item(self, number: int) -> tuple[Image.Image, torch.Tensor]:
        """Return an RGB image and its mask (H, W) uint8: 0 background, 1-20 classes, 255 ignored.

        Raises:
            BadImageError: for other values in a mask.
        """
        image, mask = self.reader[number]
        classes = torch.from_numpy(np.array(mask))
        strange = (classes > len(VOC_CLASSES)) & (classes != IGNORED)
        if classes.ndim != 2 or bool(strange.any()):
            found = f"value {int(classes[strange][0])}" if classes.ndim == 2 else "colours"
            raise BadImageError(
                f"{self.reader.masks[number]} has {found}: a mask holds 0 for background, 1 to "
                f"{len(VOC_CLASSES)} for the classes and {IGNORED} for what is ignored"
            )
        return image, classes


@dataclass(frozen=True)
class VocData:
    """The images of a task on PASCAL VOC.

    Attributes:
        folder: see `find_voc`.
        split: split to train on.
        test: split to test on.
        year: of the challenge; the earliest with the split if None.
    """

    folder: Path
    split: str = "trainval"
    test: str = "test"
    year: str | None = None

    def images(self) -> tuple[VocObjects, VocObjects]:
        """Return the images of both splits, with objects."""
        return tuple(  # type: ignore[return-value]
            VocObjects(find_voc(self.folder, split, "Main", self.year), split)
            for split in (self.split, self.test)
        )

    def masks(self) -> tuple[VocMasks, VocMasks]:
        """Return the images of both splits, with masks."""
        return tuple(  # type: ignore[return-value]
            VocMasks(find_voc(self.folder, split, "Segmentation", self.year), split)
            for split in (self.split, self.test)
        )


def _reader(
    kind: type[VOCDetection | VOCSegmentation], folder: Path, split: str
) -> VOCDetection | VOCSegmentation:
    return kind(str(folder.parent.parent), year=folder.name[3:], image_set=split)


def _checked_names(
    reader: VOCDetection | VOCSegmentation, folder: Path, split: str, target: str
) -> list[str]:
    # blank lines of the split's file name no image
    named = [number for number, path in enumerate(reader.images) if Path(path).name != ".jpg"]
    reader.images = [reader.images[number] for number in named]
    reader.targets = [reader.targets[number] for number in named]
    names = [Path(path).stem for path in reader.images]
    if not names:
        raise ValueError(f"{folder}: the split {split!r} lists no image")
    _refuse_missing(reader.images, "images")
    _refuse_missing(reader.targets, f"{target}s")
    return names


def _refuse_missing(paths: Sequence[str], what: str) -> None:
    missing = [path for path in paths if not Path(path).is_file()]
    if missing:
        raise FileNotFoundError(
            f"{missing[0]} is missing; {len(paths) - len(missing)} of {len(paths)} {what} are there"
        )
