"""lightly's training loader with the index of every image, which its batches do not have.

A batch of lightly is `(views, targets, file names)`; here it is the same with the indices (B,)
behind it, whatever the collate function, so that what reads lightly's batches still does.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.utils.data import (
    DataLoader,
    Dataset,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
)

from uic_plugin.data.images import samples_of
from uic_plugin.data.raw import with_transform
from uic_plugin.data.views import SeededViews

Parts = tuple[torch.Tensor, "list[torch.Tensor]", torch.Tensor]  # index, views, annotations
_LISTS = ("samples", "root", "targets", "labels", "data")


class NumberedImages(Dataset[Any]):
    """Items (index, views, target, file name) of a dataset of lightly's, or (index, views, target).

    What tells images apart (`samples`, `root`, ...) is that of torchvision's dataset in it.

    Args:
        dataset: a `LightlyDataset`, or another one with items that begin (views, target).
    """

    samples: list[tuple[str, int]]

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset
        inner = self._inner()
        for name in _LISTS:
            if hasattr(inner, name):
                setattr(self, name, getattr(inner, name))
        samples = samples_of(self)
        classes = {target for _, target in samples}
        if len(classes) == 1:  # a flat folder: lightly puts all of its images into one class
            self.samples = [(path, -1) for path, _ in samples]

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        return (int(index), *self.dataset[index])

    @property
    def transform(self) -> Any:
        """The augmentation, an image to views; None without one."""
        return getattr(self._inner(), "transform", None)

    @transform.setter
    def transform(self, transform: Callable[[Any], Any]) -> None:
        """Replace it; the dataset that this was made of keeps its own."""
        if self._inner() is self.dataset:
            self.dataset = with_transform(self.dataset, transform)
        else:
            outer = copy.copy(self.dataset)
            outer.dataset = with_transform(self._inner(), transform)
            self.dataset = outer

    def _inner(self) -> Any:
        """Return torchvision's dataset in lightly's."""
        has_own = hasattr(self.dataset, "index_to_filename")  # not a Subset, say
        return self.dataset.dataset if has_own else self.dataset


class NumberedCollate:
    """Puts items of `NumberedImages` together as lightly would, with the indices (B,) behind.

    Args:
        collate: of the loader that is replaced.
    """

    def __init__(self, collate: Callable[[list[Any]], Any]) -> None:
        self.collate = collate

    def __call__(self, items: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Return [views, targets, file names, index], or without names where items have none.

        Raises:
            ValueError: for batches that do not begin with views and targets.
        """
        batch = self.collate([item[1:] for item in items])
        if not isinstance(batch, (list, tuple)) or len(batch) < 2:
            raise ValueError(
                f"batches must begin with views and targets, as lightly's (views, targets, file "
                f"names), and the collate function returns {_shape_of(batch)}"
            )
        return [*batch, torch.tensor([item[0] for item in items])]


def numbered_loader(loader: Any) -> DataLoader[Any]:
    """Return a loader like a training loader of lightly's, with the index of every image.

    Args:
        loader: with or without `shuffle=True`; its order is that of a bank later.

    Raises:
        ValueError: for data whose images cannot be asked for one by one, or an order of its own.
    """
    if not isinstance(loader, DataLoader):
        raise ValueError(
            f"training needs one DataLoader over one dataset, got {type(loader).__name__}: pass "
            f"DataLoader(LightlyDataset(...), shuffle=True)"
        )
    dataset: Any = loader.dataset
    if isinstance(dataset, SeededViews):  # of this package, with indices already
        return loader
    _check_dataset(dataset)
    _check_order(loader)
    workers: dict[str, Any] = {}
    if loader.num_workers:
        workers = {
            "prefetch_factor": loader.prefetch_factor,
            "persistent_workers": loader.persistent_workers,
        }
    return DataLoader(
        NumberedImages(dataset),
        batch_size=loader.batch_size,
        num_workers=loader.num_workers,
        collate_fn=NumberedCollate(loader.collate_fn),
        pin_memory=loader.pin_memory,
        drop_last=loader.drop_last,
        timeout=loader.timeout,
        worker_init_fn=loader.worker_init_fn,
        **workers,
    )


def _check_dataset(dataset: Any) -> None:
    """Refuse a dataset that does not know its length."""
    kind = type(dataset).__name__
    try:
        has_length = not isinstance(dataset, IterableDataset) and len(dataset) >= 0
    except (TypeError, NotImplementedError, AttributeError):
        has_length = False
    if not has_length:
        raise ValueError(
            f"every image needs a label that is kept by its index, and {kind} has no length: use "
            f"LightlyDataset or another dataset with __len__ and __getitem__"
        )


def _check_order(loader: DataLoader[Any]) -> None:
    """Refuse a sampler of the user's own, which the bank's order would replace silently."""
    if loader.batch_size is None:
        raise ValueError(
            "pseudo labels decide the order of the images, so that the loader cannot have a "
            "batch_sampler or no batches: pass batch_size=, and shuffle=True"
        )
    known = (RandomSampler, SequentialSampler, DistributedSampler)
    is_plain = type(loader.sampler) in known
    if not is_plain or getattr(loader.sampler, "replacement", False):
        raise ValueError(
            f"pseudo labels decide the order of the images, and the loader has a sampler of its "
            f"own, {type(loader.sampler).__name__}: leave out sampler= and pass shuffle=True"
        )


def parts_of(batch: Any) -> Parts:
    """Return index (B,), views and annotations (B,) of a training batch.

    Args:
        batch: [views, targets, ..., index] of `numbered_loader`, or this package's own
            [index, views, annotations].

    Raises:
        ValueError: for a batch without indices, as the loaders of lightly make them.
    """
    index = index_of(batch)
    if index is None:
        raise ValueError(
            f"this batch, {_shape_of(batch)}, has no indices of its images: train with "
            f"Trainer.fit, which adds them to lightly's loader, or make the loader of a loop of "
            f"your own with uic_plugin.lightly.numbered_loader"
        )
    views, annotations = batch[1:3] if index is batch[0] else batch[:2]
    views = [views] if isinstance(views, torch.Tensor) else list(views)
    return index, views, annotations


def index_of(batch: Any) -> torch.Tensor | None:
    """Return the indices (B,) of a batch's images, None where it has none."""
    if not isinstance(batch, (list, tuple)) or len(batch) < 3:
        return None
    for part in (batch[0], batch[-1]):
        if isinstance(part, torch.Tensor) and part.ndim == 1 and not part.is_floating_point():
            return part
    return None


def _shape_of(batch: Any) -> str:
    """Return what a batch is made of, for a message."""
    if not isinstance(batch, (list, tuple)):
        return type(batch).__name__
    return f"({', '.join(type(part).__name__ for part in batch)})"
