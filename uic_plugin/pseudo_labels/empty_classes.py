"""No class may be empty: split the largest class in two random halves, one for each empty class.

    fixer = EmptyClassFixer(num_classes=3000)
    num_splits = fixer.fix(labels, generator)      # labels: (N,), changed in place

Source: UIC, section 4.2, "Avoid empty classes".
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator

import numpy as np
import torch

from uic_plugin.pseudo_labels.grouping import class_sizes, group_randomly

_BLOCK = 1 << 24  # images handled at once: bounds the memory at any number of images


class EmptyClassFixer:
    """Gives every empty pseudo class one random half of the class that is largest at that moment.

    Halves of halves of a random order are random parts of it, so the splits are first played
    through on the class sizes alone (a heap, O(E log K) for E empty classes) and the images of
    the split classes are then dealt out in one vectorised pass.

    Args:
        num_classes: number of pseudo classes K, at least 1.

    Raises:
        ValueError: if `num_classes` is below 1.
    """

    def __init__(self, num_classes: int) -> None:
        if num_classes < 1:
            raise ValueError(f"num_classes must be at least 1, got {num_classes}")
        self.num_classes = num_classes

    def fix(self, labels: torch.Tensor, generator: torch.Generator) -> int:
        """Fill the empty classes in place.

        Only images of split classes change class; ties between largest classes go to the lowest
        class id, and of an odd class the new half is the smaller one.

        Args:
            labels: (N,) integer labels in [0, K), any integer type, on any device.
            generator: CPU generator that decides which images go where.

        Returns:
            The number of splits, which is the number of classes that were empty.

        Raises:
            ValueError: with fewer images than classes, or labels outside [0, K).
        """
        num_images, num_classes = labels.numel(), self.num_classes
        if num_images < num_classes:
            raise ValueError(
                f"{num_images} images cannot fill {num_classes} classes: "
                f"set the number of pseudo classes to at most {num_images}"
            )
        sizes = class_sizes(labels, num_classes)
        empty = np.flatnonzero(sizes == 0)
        if empty.size == 0:
            return 0

        parts = _plan_splits(sizes, empty)
        for origins in _blocks_of_classes(parts, sizes):
            _deal(labels, {origin: parts[origin] for origin in origins}, sizes, generator)
        return int(empty.size)


def _plan_splits(sizes: np.ndarray, empty: np.ndarray) -> dict[int, list[int]]:
    """Split sizes until no class is empty, in place.

    Returns:
        For every class that was there before and was split, the classes made of its images,
        itself first.
    """
    heap = [(-int(size), int(c)) for c, size in enumerate(sizes) if size > 0]
    heapq.heapify(heap)
    origin: dict[int, int] = {}
    parts: dict[int, list[int]] = {}
    for new in empty.tolist():
        negative_size, largest = heap[0]
        half = -negative_size // 2
        heapq.heapreplace(heap, (negative_size + half, largest))
        heapq.heappush(heap, (-half, new))
        sizes[largest] -= half
        sizes[new] = half
        origin[new] = origin.get(largest, largest)
        parts.setdefault(origin[new], [origin[new]]).append(new)
    return parts


def _blocks_of_classes(parts: dict[int, list[int]], sizes: np.ndarray) -> Iterator[list[int]]:
    """Yield split classes in blocks of bounded size; a class above the bound comes alone."""
    block: list[int] = []
    images = 0
    for origin, classes in parts.items():
        members = int(sizes[classes].sum())
        if block and images + members > _BLOCK:
            yield block
            block, images = [], 0
        block.append(origin)
        images += members
    if block:
        yield block


def _deal(
    labels: torch.Tensor,
    parts: dict[int, list[int]],
    sizes: np.ndarray,
    generator: torch.Generator,
) -> None:
    """Deal the images of each split class, in random order, to the classes made of it."""
    origins = sorted(parts)
    is_split = torch.zeros(len(sizes), dtype=torch.bool, device=labels.device)
    is_split[torch.tensor(origins, device=labels.device)] = True

    def members(block: torch.Tensor) -> torch.Tensor:
        return is_split[block.int()]  # an index has to be 32 bits wide, the labels may be 16

    receivers = np.concatenate([parts[origin] for origin in origins])
    dealt = torch.from_numpy(np.repeat(receivers, sizes[receivers])).to(labels.dtype)
    if len(origins) == 1:
        dealt = dealt[torch.randperm(len(dealt), generator=generator, dtype=torch.int32)]
    else:
        seed = int(torch.randint(1 << 62, (1,), generator=generator))
        split = torch.cat([block[members(block)] for block in labels.split(_BLOCK)]).cpu().numpy()
        grouped = group_randomly(split, len(sizes), np.random.default_rng(seed))
        by_member = np.empty_like(split)
        by_member[grouped] = dealt.numpy()
        dealt = torch.from_numpy(by_member)
    done = 0
    for block in labels.split(_BLOCK):  # in place, in blocks: views of the labels
        mask = members(block)
        count = int(mask.sum())
        block.masked_scatter_(mask, dealt[done : done + count].to(labels.device))
        done += count
