"""Training images of `uic pretrain` under lightly: torchvision's datasets, as lightly's read them,
with the index of every image.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image
from torch.utils.data import Dataset
from torchvision.datasets import CIFAR10, CIFAR100, STL10, ImageFolder

from uic_plugin.data.rgb import as_rgb
from uic_plugin.hosts.protocol import Augmentation, SizedDataset


class _Numbered:
    """Goes before a dataset with items (crops, annotation)."""

    def __getitem__(self, index: int) -> Any:
        return (index, *super().__getitem__(index))  # type: ignore[misc]


class NumberedFolder(_Numbered, ImageFolder):
    """A folder with class folders, items (index, crops, annotation)."""


class NumberedCIFAR10(_Numbered, CIFAR10):
    """CIFAR-10, items (index, crops, annotation)."""


class NumberedCIFAR100(_Numbered, CIFAR100):
    """CIFAR-100, items (index, crops, annotation)."""


class NumberedSTL10(_Numbered, STL10):
    """STL-10, items (index, crops, annotation), -1 for its images without one."""


class FlatFolder(Dataset[Any]):
    """A folder of images without class folders, items (index, crops, -1).

    Args:
        root: the folder.
        transform: an image to its crops.
    """

    def __init__(self, root: Path, transform: Callable[[Image.Image], Any]) -> None:
        self.root, self.transform = root, transform
        self.images = sorted(os.listdir(root))

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[int, Any, int]:
        with Image.open(Path(self.root) / self.images[index]) as image:
            return index, self.transform(as_rgb(image)), -1


def pretrain_dataset(
    dataset: str, transform: Augmentation, path: Path, *, no_labels: bool
) -> SizedDataset[tuple[int, Any, int]]:
    """Return training images, items [index, crops, annotation]; see `protocol.Host`."""
    if dataset in ("cifar10", "cifar100"):
        kind: Any = {"cifar10": NumberedCIFAR10, "cifar100": NumberedCIFAR100}[dataset]
        return kind(path, train=True, download=True, transform=transform)  # type: ignore[no-any-return]
    if dataset == "stl10":
        split: Any = "train+unlabeled"
        return NumberedSTL10(str(path), split=split, download=True, transform=transform)
    if no_labels:
        return FlatFolder(path, transform)
    return NumberedFolder(str(path), transform)
