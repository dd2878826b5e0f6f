"""Samplers whose indices know their epoch and their position in the order common to all ranks."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from torch.utils.data import Dataset, DistributedSampler, Sampler

from uic_plugin.pseudo_labels import BankSampler


class Order(Protocol):
    """Image indices in order, of known number: a sampler or a list."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[int]: ...


class Draw(int):
    """An image index that knows its epoch and its position in the common order."""

    epoch: int
    position: int

    @classmethod
    def at(cls, index: int, epoch: int, position: int) -> Draw:
        """Return an image index drawn in `epoch`, at `position` of the common order."""
        draw = cls(index)
        draw.epoch, draw.position = epoch, position
        return draw


class DrawSampler(DistributedSampler[int]):
    """A `BankSampler` whose indices are `Draw`s.

    Args:
        sampler: decides the order.
        take_skip: called when an iterator starts; returns how many images of this rank's share to
            skip, when a run resumes within an epoch.
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
    """A rank's share of all images as `Draw`s, for a pass besides an epoch's training order.

    Args:
        dataset: the images.
        epoch: called when an iterator starts; returns the current epoch.
        share: see `DistributedSampler`.
    """

    def __init__(self, dataset: Dataset[Any], epoch: Callable[[], int], **share: Any) -> None:
        super().__init__(dataset, **share)
        self.now = epoch

    def __iter__(self) -> Iterator[int]:
        epoch, whole = self.now(), len(self.dataset)  # type: ignore[arg-type]
        for index in super().__iter__():
            yield Draw.at(index, epoch, whole + index)  # lower positions are the training order's


class EvenBatches(Sampler[list[int]]):
    """The fewest batches of at most a given size, whose sizes differ by at most one.

    Args:
        sampler: the order.
        batch_size: largest size of a batch.
    """

    def __init__(self, sampler: Order, batch_size: int) -> None:
        self.sampler, self.batch_size = sampler, batch_size

    def __len__(self) -> int:
        return -(-len(self.sampler) // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        size, larger = divmod(len(self.sampler), max(len(self), 1))
        indices = iter(self.sampler)
        for number in range(len(self)):
            yield list(itertools.islice(indices, size + (number < larger)))
