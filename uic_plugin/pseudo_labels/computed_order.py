"""The balanced order of very many images: computed where it is asked for, not kept.

    order = ComputedOrder(labels, sizes, seed=0, epoch=3)
    order(np.arange(256))            # the first 256 images of the epoch

A position of the order becomes, by a keyed permutation, a position in the selection class by class,
of which each class has `floor(N/K) + 1`. Images class by class, each class in random order, are all
that is kept: 4 bytes an image, 8 above 2 ** 31 images.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import torch

from uic_plugin.pseudo_labels.keyed import KeyedPermutation, drawn
from uic_plugin.seeding import derive_seed

Result = TypeVar("Result")
_BLOCK = 1 << 19  # images grouped at once: bounds the memory beside the grouped images
_IN_FLIGHT = 2  # blocks that wait for each thread


class ComputedOrder:
    """Finds the image at any position of an epoch's order.

    Args:
        labels: (N,) integer classes, in memory or mapped; read in the constructor alone.
        sizes: (K,) images of each class, none of them empty unless the class is to be left out.
        seed, epoch: decide the order.
    """

    def __init__(self, labels: np.ndarray, sizes: np.ndarray, *, seed: int, epoch: int) -> None:
        filled = sizes[sizes > 0]
        self.quota = len(labels) // len(filled) + 1
        self._sizes, self._starts = filled, np.cumsum(filled) - filled
        self._positions = KeyedPermutation(
            self.quota * len(filled), derive_seed(seed, "computed order", epoch)
        )
        self._draws = derive_seed(seed, "computed draws", epoch)
        self._grouped = group_in_blocks(labels, sizes)
        rng = np.random.default_rng(derive_seed(seed, "computed members", epoch))
        for start, size in zip(self._starts, filled, strict=True):
            rng.shuffle(self._grouped[start : start + size])

    def __call__(self, positions: np.ndarray) -> np.ndarray:
        """Return the images (n,) int32 or int64 at positions (n,) in [0, N)."""
        selected = self._positions(positions)
        of_class = (selected // np.uint64(self.quota)).astype(np.int64)
        number = selected.astype(np.int64) - of_class * self.quota
        sizes = self._sizes[of_class]
        short = np.flatnonzero(sizes <= self.quota)  # drawn with replacement
        number[short] = drawn(selected[short], sizes[short], self._draws)
        images: np.ndarray = self._grouped[self._starts[of_class] + number]
        return images


def group_in_blocks(labels: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Return images class by class, each class in the order of its images, (N,).

    A counting sort in blocks, which reads labels from first to last: threads sort the labels of a
    block, and its runs of one class are then appended to the classes, block after block.

    Args:
        labels: (N,) integer classes, in memory or mapped.
        sizes: (K,) images of each class.
    """
    count = len(labels)
    grouped = np.empty(count, np.int32 if count < 1 << 31 else np.int64)
    ends = np.cumsum(sizes) - sizes  # of what each class has so far

    def sort(first: int) -> tuple[int, np.ndarray, np.ndarray]:
        classes = labels[first : first + _BLOCK]
        order = np.argsort(classes, kind="stable")  # of 16 bits: a radix sort
        return first, order, classes[order]

    for first, order, classes in in_turn(sort, range(0, count, _BLOCK)):
        counts = np.bincount(classes, minlength=len(sizes))
        target = (ends - (np.cumsum(counts) - counts))[classes]
        target += np.arange(len(classes))
        order += first
        grouped[target] = order
        ends += counts
    return grouped


def in_turn(work: Callable[[int], Result], arguments: Iterable[int]) -> Iterator[Result]:
    """Yield the results of work on torch's number of threads, in the order of its arguments."""
    threads = torch.get_num_threads()
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        for argument in arguments:
            waiting.append(pool.submit(work, argument))
            if len(waiting) >= threads * _IN_FLIGHT:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
