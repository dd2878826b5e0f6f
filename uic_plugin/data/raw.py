"""Decoded images on their way to a training whose views are made of whole batches.

A loader's workers decode, and put the bytes of a batch together; when the batch is sent to the
device of the training, what arrives there are its views. Where that is the CPU, the workers make
the views, too.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import get_worker_info
from torchvision.datasets import CIFAR10, CIFAR100
from torchvision.datasets.vision import StandardTransform

from uic_plugin.augmentation import BatchViews, Pixels
from uic_plugin.data.views import BAD_IMAGE_ERRORS, SeededViews, SizedDataset
from uic_plugin.pseudo_labels import Draw

Item = tuple[int, np.ndarray, int]  # index, (H, W, 3) uint8, annotation


@dataclass(frozen=True)
class RawBatch:
    """A batch of decoded images, which becomes [index, views, annotations] on the way to a device.

    Anything with a method `to` is sent to the device by that method, by Lightning too. Iterated
    over it gives the same where it is.

    Attributes:
        index: (B,) int64 image indices.
        pixels: the images.
        annotations: (B,) int64 classes by people, -1 for none.
        epochs: (B,) int64, epoch in which each image was drawn.
        positions: (B,) int64, its position in the order of that epoch.
        views: makes the views.
    """

    index: torch.Tensor
    pixels: Pixels
    annotations: torch.Tensor
    epochs: np.ndarray
    positions: np.ndarray
    views: BatchViews

    def to(self, device: torch.device | str, **_: Any) -> list[Any]:
        """Return [index (B,), views, each (B, 3, S, S), annotations (B,)] on a device."""
        views = self.views(self.pixels.to(device), self.epochs, self.positions)
        index, annotations = (
            values.to(device, non_blocking=True) for values in (self.index, self.annotations)
        )
        return [index, views, annotations]

    def pin_memory(self) -> RawBatch:
        """Return it in memory that a GPU can read while the CPU works on."""
        return RawBatch(
            self.index.pin_memory(),
            self.pixels.pin_memory(),
            self.annotations.pin_memory(),
            self.epochs,
            self.positions,
            self.views,
        )

    def __len__(self) -> int:
        return len(self.index)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.to(self.index.device))


class RawImages(SeededViews):
    """A dataset's decoded images, in batches; it names bad images.

    Args:
        dataset: the host's, with items [index, views, annotation]. One with `raw(index)`, an
            (H, W, 3) uint8 array, is asked for that; of another the transform is left out.
        views: makes the views.
        in_workers: whether a loader's workers make the views, for a training on the CPU; they are
            the same wherever they are made.
        seed, on_bad_image, max_bad_images: see `SeededViews`.
    """

    def __init__(
        self, dataset: SizedDataset, views: BatchViews, *, in_workers: bool = False, **given: Any
    ) -> None:
        super().__init__(dataset, **given)
        self.views, self.in_workers = views, in_workers
        self._decoded = None if hasattr(dataset, "raw") else with_transform(dataset, np.array)
        self._array = _array_of(dataset)

    def __getitem__(self, index: int) -> Item:
        """Return (index, pixels (H, W, 3) uint8, annotation)."""
        item: Item = self._read(int(index))
        return item

    def __getitems__(self, draws: Sequence[int]) -> RawBatch | list[Any]:
        """Return a batch, or what it becomes, as a loader asks for it that has all its indices."""
        batch = self.batch(draws)
        return batch.to("cpu") if self.in_workers and get_worker_info() is not None else batch

    def batch(self, draws: Sequence[int]) -> RawBatch:
        """Return the decoded images of some draws."""
        index, images, annotations = self._together(draws)
        draw_of = [draw if isinstance(draw, Draw) else Draw.at(draw, 0, draw) for draw in draws]
        return RawBatch(
            torch.from_numpy(index),
            Pixels.of(images),
            torch.from_numpy(annotations),
            np.array([draw.epoch for draw in draw_of], np.int64),
            np.array([draw.position for draw in draw_of], np.int64),
            self.views,
        )

    def _together(
        self, draws: Sequence[int]
    ) -> tuple[np.ndarray, Sequence[np.ndarray] | np.ndarray, np.ndarray]:
        """Return index (B,), images and annotations (B,) of a batch."""
        dataset: Any = self.dataset
        index = np.array(draws, np.int64)
        if self._array is not None:
            return index, self._array[index], self._annotations[index]
        if hasattr(dataset, "raw_batch"):
            try:
                return index, dataset.raw_batch(index), self._annotations[index]
            except BAD_IMAGE_ERRORS:
                pass  # one by one, to name the image
        items = [self[draw] for draw in draws]
        return (
            np.array([item[0] for item in items], np.int64),
            [item[1] for item in items],
            np.array([item[2] for item in items], np.int64),
        )

    @functools.cached_property
    def _annotations(self) -> np.ndarray:
        dataset: Any = self.dataset
        return np.asarray(dataset.targets).astype(np.int64)

    def _item(self, index: int) -> Any:
        if self._decoded is not None:
            return self._decoded[index]
        dataset: Any = self.dataset
        return index, dataset.raw(index), int(self._annotations[index])


def _array_of(dataset: Any) -> np.ndarray | None:
    """Return the images of a torchvision dataset that keeps them in memory, (N, H, W, 3) uint8."""
    images = getattr(dataset, "data", None)
    if not isinstance(dataset, (CIFAR10, CIFAR100)) or not isinstance(images, np.ndarray):
        return None
    return images if images.shape[-1] == 3 and len(images) == len(dataset) else None


def one_batch(batch: Any) -> Any:
    """Return what `RawImages` has put together already: a loader's `collate_fn`."""
    return batch


def with_transform(dataset: Any, transform: Callable[[Any], Any]) -> Any:
    """Return a copy of a dataset that shares its images, with another transform of each image."""
    copied = copy.copy(dataset)
    copied.transform = transform
    if hasattr(copied, "transforms"):  # torchvision's datasets call this one
        copied.transforms = StandardTransform(transform)
    return copied
