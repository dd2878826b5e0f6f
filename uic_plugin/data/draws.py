"""Which image comes when: draws that know their epoch and place, in a rank's share of an order."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

from torch.utils.data import DistributedSampler, Sampler

from uic_plugin.pseudo_labels import BankSampler


class Draw(int):
    """An image index that knows when it was drawn: epoch, and place in the common order."""

    epoch: int
    place: int

    @classmethod
    def at(cls, index: int, epoch: int, place: int) -> Draw:
        """Return an image index drawn in `epoch`, at `position` of the common order."""
        draw = cls(index)
        draw.epoch, draw.place = epoch, place
        return draw


class DrawSampler(DistributedSampler[int]):
    """A `BankSampler` whose indices are `Draw`s.

    Args:
        sampler: decides the order.
        take_skip: called when an iterator starts; says how many images of this rank's share are
            behind it already, where a run goes on within an epoch.
    """

    def __init__(self, sampler: BankSampler, take_skip: Callable[[], int] = lambda: 0) -> None:
        super().__init__(sampler.dataset, sampler.num_replicas, sampler.rank)
        self.sampler = sampler
        self.take_skip = take_skip

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[int]:
        epoch, skip = self.sampler.bank.epoch, self.take_skip()
        for number, index in enumerate(self.sampler):
            if number < skip:
                continue
            yield Draw.at(index, epoch, self.rank + number * self.num_replicas)


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
            yield Draw.at(index, epoch, whole + index)  # places below are the epoch's own


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
