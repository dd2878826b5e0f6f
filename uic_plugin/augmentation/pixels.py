"""The decoded images of a batch, of one size or of several, in one tensor of bytes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch


@dataclass(frozen=True)
class Pixels:
    """Decoded RGB images.

    Attributes:
        data: (B, H, W, 3) uint8, where all images have one size; else (total,) uint8, one image
            after another.
        sizes: (B, 2) int64, height and width of each image, in memory of the CPU.
    """

    data: torch.Tensor
    sizes: np.ndarray

    @classmethod
    def of(cls, images: Sequence[np.ndarray] | np.ndarray) -> Pixels:
        """Return the images of a batch.

        Args:
            images: each (H, W, 3) uint8, or all of them (B, H, W, 3).

        Raises:
            ValueError: for an image of another kind.
        """
        for image in images if isinstance(images, Sequence) else images[:1]:
            if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
                raise ValueError(
                    f"an image must be (H, W, 3) uint8, got {image.shape} {image.dtype}"
                )
        shapes = [image.shape[:2] for image in images]
        if len(set(shapes)) == 1:
            data = np.stack(images) if isinstance(images, Sequence) else images
        else:
            data = np.concatenate([image.reshape(-1) for image in images])
        return cls(torch.from_numpy(np.ascontiguousarray(data)), np.array(shapes, np.int64))

    def __len__(self) -> int:
        return len(self.sizes)

    @property
    def is_even(self) -> bool:
        """Whether all images have one size."""
        return self.data.ndim == 4

    def to(self, device: torch.device | str) -> Pixels:
        """Return them on a device; sizes stay where they are."""
        return Pixels(self.data.to(device, non_blocking=True), self.sizes)

    def pin_memory(self) -> Pixels:
        """Return them in memory that a GPU can read while the CPU works on."""
        return Pixels(self.data.pin_memory(), self.sizes)

    def image(self, number: int) -> torch.Tensor:
        """Return one image, (H, W, 3), without a copy."""
        if self.is_even:
            return self.data[number]
        height, width = (int(side) for side in self.sizes[number])
        first = int(self._starts()[number])
        return self.data[first : first + height * width * 3].view(height, width, 3)

    def groups(self, limit: int) -> Iterator[tuple[np.ndarray, torch.Tensor]]:
        """Iterate over parts of the batch, each padded to a tensor of one size.

        Args:
            limit: bytes that a part of several images may have.

        Yields:
            The numbers of some images (n,), in order of their size, and the images (n, H, W, 3),
            with zeros below and to the right of smaller ones.
        """
        if self.is_even:
            bytes_each = max(1, int(self.sizes[0].prod()) * 3)
            step = max(1, limit // bytes_each)
            for first in range(0, len(self), step):
                numbers = np.arange(first, min(first + step, len(self)))
                yield numbers, self.data[first : first + step]
            return
        order = np.lexsort((self.sizes[:, 1], self.sizes[:, 0]))
        first = 0
        while first < len(order):
            last, sides = first, np.zeros(2, np.int64)
            while last < len(order):
                larger = np.maximum(sides, self.sizes[order[last]])
                if last > first and larger.prod() * 3 * (last - first + 1) > limit:
                    break
                sides, last = larger, last + 1
            numbers = order[first:last]
            yield numbers, self._padded(numbers, sides)
            first = last

    def _padded(self, numbers: np.ndarray, sides: np.ndarray) -> torch.Tensor:
        """Return some images of different sizes (n, H, W, 3), with zeros around smaller ones."""
        device = self.data.device
        rows, columns = (torch.arange(int(side), device=device) for side in sides)
        heights, widths, starts = (
            torch.from_numpy(values).to(device, non_blocking=True)[:, None, None]
            for values in (*self.sizes[numbers].T.copy(), self._starts()[numbers])
        )
        places = starts + (rows[:, None] * widths + columns) * 3
        inside = (rows[:, None] < heights) & (columns < widths)
        places = places.clamp_(max=len(self.data) - 3)[..., None] + torch.arange(3, device=device)
        return self.data[places] * inside[..., None]

    def _starts(self) -> np.ndarray:
        counts = self.sizes.prod(1) * 3
        return np.cumsum(counts) - counts
