"""Passes over all images beside an epoch's own order: shares of draws, even batches."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

from torch.utils.data import DistributedSampler, Sampler

from uic_plugin.pseudo_labels import Draw


class DrawnShare(DistributedSampler[int]):
    """A rank's share of all images as `Draw`s, for a pass beside an epoch's own order.

    Args:
        dataset: whose images.
        epoch: called when an iterator starts.
        share: see `DistributedSampler`.
    """

    def __init__(self, dataset: Any, epoch: Callable[[], int], **share: Any) -> None:
        super().__init__(dataset, **share)
        self.now = epoch

    def __iter__(self) -> Iterator[int]:
        epoch, whole = self.now(), len(self.dataset)  # type: ignore[arg-type]
        for index in super().__iter__():
            yield Draw.at(index, epoch, whole + index)  # positions below are the epoch's own


class EvenBatches(Sampler[list[int]]):
    """As few batches as a largest size allows, of sizes that differ by at most one.

    Args:
        sampler: the order, of known length.
        batch_size: the largest.
    """

    def __init__(self, sampler: Any, batch_size: int) -> None:
        self.sampler, self.batch_size = sampler, batch_size

    def __len__(self) -> int:
        return -(-len(self.sampler) // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        size, larger = divmod(len(self.sampler), max(len(self), 1))
        places = iter(self.sampler)
        for number in range(len(self)):
            yield list(itertools.islice(places, size + (number < larger)))
