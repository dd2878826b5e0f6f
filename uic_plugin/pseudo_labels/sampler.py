"""The order of an epoch: every pseudo class contributes the same number of images.

    sampler = ClassBalancedSampler(bank, seed=0, rank=0, world_size=1)
    loader = DataLoader(dataset, batch_size=256, sampler=sampler, drop_last=True)

Up to `MAX_SHUFFLED` images the order is shuffled in memory, about 20 bytes an image while it is
made. Of more it is computed where it is asked for, see `computed_order.py`, with the same promises.

Source: UIC, section 4.2, "Class balance sampling"; `floor(N/K) + 1` per class and the final cut
to N as in the authors' released code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from torch.utils.data import DistributedSampler

from uic_plugin.pseudo_labels.bank import PseudoLabelBank
from uic_plugin.pseudo_labels.computed_order import ComputedOrder, in_turn
from uic_plugin.pseudo_labels.grouping import class_sizes, group_randomly
from uic_plugin.pseudo_labels.keyed import KeyedPermutation
from uic_plugin.pseudo_labels.storage import LabelStore
from uic_plugin.seeding import derive_seed, make_generator

MAX_SHUFFLED = 1 << 27  # images
_BLOCK = 1 << 23  # images handled at once: bounds the memory beside the order itself
_YIELDED = 1 << 16  # images whose indices are Python integers at once

Find = Callable[[np.ndarray], np.ndarray]  # positions (n,) of an order to images (n,)


class Draw(int):
    """An image index that knows in which epoch and at which position of its order it was drawn."""

    epoch: int
    position: int

    @classmethod
    def at(cls, index: int, epoch: int, position: int) -> Draw:
        """Return an image drawn in `epoch`, at `position` of the common order."""
        draw = cls(index)
        draw.epoch, draw.position = epoch, position
        return draw


class BankSampler(DistributedSampler[int]):
    """One common order per epoch, a disjoint share of it per rank.

    Labels and epoch are read from the bank when an iterator starts, because Lightning starts the
    first one before it tells a sampler the epoch. A `DistributedSampler`, because Lightning
    re-wraps any other kind with a shuffle of its own on each rank.

    Args:
        bank: labels, or another store of them, whose images to order.
        seed: seed of the order; (seed, epoch) decides it.
        rank: which share, in [0, world_size).
        world_size: number of shares, each of `N // world_size` images.
        take_skip: called when an iterator starts; says how many images of this rank's share have
            been seen already, where a run resumes within an epoch.
        max_shuffled: the most images whose order is shuffled in memory; of more it is computed.
            Two runs have the same order only if both shuffle, or both compute.

    An iterator yields `Draw`s, whose views can be seeded by epoch and position.

    Raises:
        ValueError: for a rank or world size out of range.
    """

    def __init__(
        self,
        bank: LabelStore,
        *,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        take_skip: Callable[[], int] = lambda: 0,
        max_shuffled: int = MAX_SHUFFLED,
    ) -> None:
        if world_size < 1 or not 0 <= rank < world_size:
            raise ValueError(
                f"rank must lie in [0, world_size), got rank {rank} of world size {world_size}"
            )
        if world_size > len(bank):
            raise ValueError(f"{len(bank)} images cannot be shared by {world_size} ranks")
        images: Any = range(len(bank))
        super().__init__(images, world_size, rank, shuffle=True, seed=seed, drop_last=True)  # type: ignore[arg-type]
        self.bank, self.take_skip = bank, take_skip
        self.is_computed = len(bank) > max_shuffled
        self.num_samples = len(bank) // world_size
        self.total_size = self.num_samples * world_size

    def order(self) -> torch.Tensor:
        """Return the common order of the present epoch, (N,) int32 or int64 image indices."""
        return self._part(slice(0, len(self.bank), 1))

    def share(self) -> torch.Tensor:
        """Return this rank's part of the order, (N // world_size,), in the memory of a part."""
        return self._part(slice(self.rank, self.total_size, self.num_replicas))

    def _part(self, part: slice) -> torch.Tensor:
        if not self.is_computed:
            return self._order(part)
        find, positions = self._finder(), range(part.start, part.stop, part.step)
        found = torch.empty(len(positions), dtype=_index_dtype(len(self.bank)))
        starts = range(0, len(positions), _YIELDED)

        def fill(first: int) -> None:
            block = positions[first : first + _YIELDED]
            images = find(np.arange(block.start, block.stop, block.step, dtype=np.uint64))
            found[first : first + len(block)] = torch.from_numpy(images)

        for _ in in_turn(fill, starts):
            pass
        return found

    def _order(self, part: slice) -> torch.Tensor:
        """Return a part of the order of few images, shuffled in memory."""
        raise NotImplementedError

    def _finder(self) -> Find:
        """Return what finds the images at positions of the order of many images."""
        raise NotImplementedError

    def _blocks(self, done: int) -> Iterator[torch.Tensor]:
        """Yield this rank's share from its number `done` on, in blocks."""
        if not self.is_computed:
            yield from self.share()[done:].split(_YIELDED)  # not one list of N Python integers
            return
        find = self._finder()
        positions = range(self.rank, self.total_size, self.num_replicas)
        for first in range(done, self.num_samples, _YIELDED):
            block = positions[first : first + _YIELDED]
            numbers = np.arange(block.start, block.stop, block.step, dtype=np.uint64)
            yield torch.from_numpy(find(numbers))

    def __len__(self) -> int:
        return self.num_samples

    def __iter__(self) -> Iterator[int]:
        epoch, number = self.bank.epoch, self.take_skip()
        for block in self._blocks(number):
            for index in block.tolist():
                yield Draw.at(index, epoch, self.rank + number * self.num_replicas)
                number += 1


class ShuffledSampler(BankSampler):
    """Every image once, in random order: what is left when balanced sampling is off."""

    def _order(self, part: slice) -> torch.Tensor:
        generator = make_generator(self.seed, "order", self.bank.epoch)
        dtype = _index_dtype(len(self.bank))
        return torch.randperm(len(self.bank), generator=generator, dtype=dtype)[part]

    def _finder(self) -> Find:
        key = derive_seed(self.seed, "computed order", self.bank.epoch)
        permutation = KeyedPermutation(len(self.bank), key)
        dtype = np.int32 if len(self.bank) < 1 << 31 else np.int64
        return lambda positions: permutation(positions).astype(dtype)


class ClassBalancedSampler(BankSampler):
    """Draws `floor(N/K) + 1` images of every class, shuffles them together, cuts to N.

    Without replacement from a class that has more images than that, with replacement otherwise.

    Args:
        bank, seed, rank, world_size, take_skip, max_shuffled: see `BankSampler`.
        skip_empty: leave classes without an image out, K counts the others: for labels that
            nothing may change. Off, an empty class is an error.
        more_banks: labels of further heads; the classes of each head are balanced one
            after another, a head an epoch.

    An order raises `ValueError` if the bank has an empty class and `skip_empty` is off.
    """

    def __init__(
        self,
        bank: PseudoLabelBank,
        *,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        skip_empty: bool = False,
        more_banks: Sequence[PseudoLabelBank] = (),
        take_skip: Callable[[], int] = lambda: 0,
        max_shuffled: int = MAX_SHUFFLED,
    ) -> None:
        super().__init__(
            bank,
            seed=seed,
            rank=rank,
            world_size=world_size,
            take_skip=take_skip,
            max_shuffled=max_shuffled,
        )
        self.skip_empty = skip_empty
        self.banks = (bank, *more_banks)

    def _labels(self) -> tuple[PseudoLabelBank, np.ndarray]:
        """Return the bank that this epoch balances, and the sizes of its classes (K,).

        Raises:
            ValueError: for an empty class, unless it may be left out.
        """
        bank = self.banks[self.bank.epoch % len(self.banks)]
        num_classes = bank.num_classes
        sizes = class_sizes(bank.labels, num_classes)
        num_empty = int((sizes == 0).sum())
        if num_empty and not self.skip_empty:
            raise ValueError(
                f"{num_empty} of {num_classes} classes are empty and cannot be sampled: "
                f"pass an EmptyClassFixer to PseudoLabelBank.commit, or call "
                f"bank.fix_empty_classes(EmptyClassFixer({num_classes})) before the first epoch"
            )
        return bank, sizes

    def _finder(self) -> Find:
        bank, sizes = self._labels()
        labels = bank.labels.cpu().numpy()
        return ComputedOrder(labels, sizes, seed=self.seed, epoch=self.bank.epoch)

    def _order(self, part: slice) -> torch.Tensor:
        bank, sizes = self._labels()
        num_images, num_classes = len(bank), bank.num_classes
        filled = sizes[sizes > 0]  # images class by class are the same without empty ones
        quota = num_images // len(filled) + 1
        dtype = _index_dtype(quota * len(filled))
        epoch = self.bank.epoch
        with ThreadPoolExecutor(1) as pool:  # the two shuffles do not depend on each other
            # Entries of the final order, as positions in the class-by-class selection; those
            # past N are the cut.
            shuffle = pool.submit(
                torch.randperm,
                quota * len(filled),
                generator=make_generator(self.seed, "order", epoch),
                dtype=dtype,
            )
            rng = np.random.default_rng(derive_seed(self.seed, "members", epoch))
            grouped = group_randomly(bank.labels.cpu().numpy(), num_classes, rng)
            selected = torch.from_numpy(_select(grouped, filled, quota, rng))
            positions = shuffle.result()[:num_images][part].contiguous()
        order = torch.empty(len(positions), dtype=dtype)
        for done, block in zip(order.split(_BLOCK), positions.split(_BLOCK), strict=True):
            torch.index_select(selected, 0, block, out=done)
        return order


def _index_dtype(count: int) -> torch.dtype:
    return torch.int32 if count < 1 << 31 else torch.int64


def _select(
    grouped: np.ndarray,
    sizes: np.ndarray,
    quota: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """Return `quota` images of each class, (K quota,).

    Args:
        grouped: (N,) images, class by class.
        sizes: (K,) images of each class, none empty.
        quota: images of each class.
        rng: draws images with replacement where a class has no more than the quota.
    """
    starts = np.cumsum(sizes) - sizes
    selected = np.empty((len(sizes), quota), dtype=grouped.dtype)
    step = max(1, _BLOCK // quota)
    for first in range(0, len(sizes), step):  # over blocks of classes
        block = slice(first, min(first + step, len(sizes)))
        position = starts[block, None] + np.arange(quota)
        short = np.flatnonzero(sizes[block] <= quota)
        draws = rng.random((len(short), quota)) * sizes[block][short, None]
        position[short] = starts[block][short, None] + draws.astype(np.int64)
        # positions are in range by construction; mode="raise" would buffer the output
        np.take(grouped, position, out=selected[block], mode="clip")
    return selected.reshape(-1)
