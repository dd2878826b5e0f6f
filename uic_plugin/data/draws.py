"""Passes over all images beside an epoch's own order: shares of draws, even batches."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import numpy as np
import torch
from torch.utils.data import Dataset, DistributedSampler, Sampler

from uic_plugin.pseudo_labels import Draw
from uic_plugin.pseudo_labels.keyed import KeyedPermutation
from uic_plugin.seeding import derive_seed, make_generator

_BLOCK = 1 << 16  # images whose indices are Python integers at once


class Order(Protocol):
    """Image indices in order, of known number: a sampler or a list."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[int]: ...


class DrawnShare(DistributedSampler[int]):
    """A rank's share of all images as `Draw`s, for a pass besides an epoch's training order.

    Args:
        dataset: the images.
        epoch: called when an iterator starts; returns the current epoch.
        share: see `DistributedSampler`. With `shuffle` the order is one of (seed, epoch), without
            it that of the dataset. Shares are padded to be equal.
    """

    def __init__(self, dataset: Dataset[Any], epoch: Callable[[], int], **share: Any) -> None:
        super().__init__(dataset, **share)
        self.now = epoch

    def __iter__(self) -> Iterator[int]:
        epoch, whole = self.now(), len(self.dataset)  # type: ignore[arg-type]
        shuffled = KeyedPermutation(whole, derive_seed(self.seed, "pass order", epoch))
        for first in range(0, self.num_samples, _BLOCK):
            numbers = np.arange(first, min(first + _BLOCK, self.num_samples), dtype=np.uint64)
            places = (numbers * self.num_replicas + self.rank) % whole
            for index in (shuffled(places) if self.shuffle else places).tolist():
                yield Draw.at(index, epoch, whole + index)  # positions below are the epoch's own


class EpochOrder(DistributedSampler[int]):
    """Every image once in an epoch, in an order of (seed, epoch): for methods without labels.

    A rank's share, as of `BankSampler`, of ranks and epochs that are known when training is set up.

    Args:
        dataset: the images.
        seed: of the order.
    """

    def __init__(self, dataset: Dataset[Any], seed: int) -> None:
        super().__init__(dataset, num_replicas=1, rank=0, seed=seed, drop_last=True)
        self.now: Callable[[], int] | None = None

    def follow(self, epoch: Callable[[], int], rank: int, world_size: int) -> None:
        """Take over the epoch, called when an iterator starts, and the share.

        Lightning starts the first iterator of a resumed run before it tells a sampler the epoch.
        """
        self.now, self.rank, self.num_replicas = epoch, rank, world_size
        self.num_samples = len(self.dataset) // world_size  # type: ignore[arg-type]
        self.total_size = self.num_samples * world_size

    def __iter__(self) -> Iterator[int]:
        epoch = self.epoch if self.now is None else self.now()
        whole = len(self.dataset)  # type: ignore[arg-type]
        order = torch.randperm(whole, generator=make_generator(self.seed, "order", epoch))
        share = order[self.rank : self.total_size : self.num_replicas]
        for number, index in enumerate(share.tolist()):
            yield Draw.at(index, epoch, self.rank + number * self.num_replicas)


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
