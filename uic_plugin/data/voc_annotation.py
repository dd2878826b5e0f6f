"""Read and check an annotation of PASCAL VOC: the objects of an image.

Source: Everingham et al., The PASCAL Visual Object Classes Challenge, 2010, and its development
kit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import ParseError

import torch
from PIL import Image
from torchvision.datasets import VOCDetection

VOC_CLASSES = (
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
)
_CORNERS = ("xmin", "ymin", "xmax", "ymax")


@dataclass(frozen=True)
class Objects:
    """The objects of an image.

    Attributes:
        boxes: (B, 4) float32, x and y of two corners in pixels from the image's corner; a box of
            one pixel has width 1.
        labels: (B,) int64 indices into `VOC_CLASSES`.
        difficult: (B,) bool, objects that evaluations leave out.
    """

    boxes: torch.Tensor
    labels: torch.Tensor
    difficult: torch.Tensor


def read_annotation(
    path: Path, image: Path, fractional: list[str]
) -> tuple[Objects, tuple[int, int]]:
    """Return the objects of an image, and its (width, height) in pixels.

    Args:
        path: the XML file.
        image: the image that it describes; opened only if the file does not state its size.
        fractional: list to which boxes with fractional coordinates are appended.

    Raises:
        ValueError: for an impossible value, naming the file and the value.
    """
    content = _parsed(path)
    size = _size(content, image, path)
    boxes, labels, difficult = [], [], []
    for item in content["object"]:
        name = item.get("name") if isinstance(item, dict) else None
        if name not in VOC_CLASSES:
            raise ValueError(
                f"{path}: unknown class {name!r}; PASCAL VOC has {', '.join(VOC_CLASSES)}"
            )
        boxes.append(_box(item, size, path, fractional))
        labels.append(VOC_CLASSES.index(name))
        difficult.append(item.get("difficult") == "1")
    objects = Objects(
        torch.tensor(boxes, dtype=torch.float32).view(-1, 4),
        torch.tensor(labels, dtype=torch.int64),
        torch.tensor(difficult, dtype=torch.bool),
    )
    return objects, size


def _parsed(path: Path) -> dict[str, Any]:
    from torchvision.datasets.voc import ET_parse

    try:
        content = VOCDetection.parse_voc_xml(ET_parse(path).getroot())
    except ParseError as error:
        raise ValueError(f"{path} is no annotation of PASCAL VOC ({error})") from error
    inner = content.get("annotation")
    if not isinstance(inner, dict) or not isinstance(inner.get("object"), list):
        raise ValueError(f"{path} is no annotation of PASCAL VOC: it lists no object")
    return inner


def _size(content: dict[str, Any], image: Path, path: Path) -> tuple[int, int]:
    given = content.get("size")
    if not isinstance(given, dict):
        with Image.open(image) as file:
            return file.size
    try:
        return int(given["width"]), int(given["height"])
    except (KeyError, ValueError) as error:
        raise ValueError(f"{path}: the size of the image must be whole numbers, got {given}") from (
            error
        )


def _box(
    item: dict[str, Any], size: tuple[int, int], path: Path, fractional: list[str]
) -> list[float]:
    """Convert VOC's pixels, counted from 1 and both inclusive, to lengths from the corner."""
    given = item.get("bndbox")
    given = given if isinstance(given, dict) else {}
    try:
        corners = [float(given[name]) for name in _CORNERS]
    except (KeyError, ValueError, TypeError) as error:
        raise ValueError(
            f"{path}: a box needs numbers {', '.join(_CORNERS)}, got {dict(given)}"
        ) from error
    x1, y1, x2, y2 = corners
    width, height = size
    if not all(map(math.isfinite, corners)) or x1 > x2 or y1 > y2:
        raise ValueError(f"{path}: no box goes from ({x1:g}, {y1:g}) to ({x2:g}, {y2:g})")
    # some files count pixels from 0: a 0 is read as 1
    if min(x1, y1) < 0 or x2 > width or y2 > height:
        raise ValueError(
            f"{path}: the box from ({x1:g}, {y1:g}) to ({x2:g}, {y2:g}) leaves the image of "
            f"{width} x {height} pixels"
        )
    if any(value != int(value) for value in corners):
        fractional.append(f"{path.stem}: {next(v for v in corners if v != int(v)):g}")
    return [max(x1 - 1, 0.0), max(y1 - 1, 0.0), x2, y2]
