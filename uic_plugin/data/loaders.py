"""Loaders of seeded views, whose workers ignore signals meant for the training process."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.utils.data import DataLoader
from torch.utils.data.dataloader import _BaseDataLoaderIter

from uic_plugin.augmentation import BatchViews
from uic_plugin.data.draws import EvenBatches, Order
from uic_plugin.data.raw import RawImages, one_batch
from uic_plugin.data.views import SeededViews, SizedDataset
from uic_plugin.pseudo_labels import BankSampler


class ViewLoader(DataLoader[Any]):
    """A loader of `SeededViews` that resets the count of unreadable images in every pass."""

    def __iter__(self) -> _BaseDataLoaderIter:
        dataset: Any = self.dataset
        dataset.bad_images.value = 0
        return super().__iter__()


def leave_signals_to_parent(worker: int) -> None:
    """Let a worker ignore Ctrl-C and SIGTERM, except a SIGTERM of the training process.

    A request to stop may be sent to all processes of a job; the training process then ends its
    workers by SIGTERM.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):  # it names the sender, unlike a Python signal handler
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()


def _end_with_parent(parent: int) -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
        pass
    os._exit(0)


def view_loader(
    dataset: SizedDataset,
    *,
    seed: int,
    batch_size: int,
    num_workers: int = 0,
    on_bad_image: str = "stop",
    max_bad_images: int | None = None,
    sampler: Order | Iterable[int] | None = None,
    shuffle: bool = False,
    drop_last: bool = False,
    even: bool = False,
    collate: Callable[[list[Any]], Any] | None = None,
    persistent: bool = False,
    views: BatchViews | None = None,
    in_workers: bool = False,
) -> DataLoader[Any]:
    """Return a loader of a dataset with seeded views, which names unreadable images.

    Args:
        dataset: with items of any kind.
        seed, on_bad_image, max_bad_images: see `SeededViews`.
        batch_size, num_workers, sampler, shuffle, drop_last: see `DataLoader`.
        even: batches of nearly equal size, none above `batch_size`; needs `sampler`.
        collate: items to a batch; by default they are stacked.
        persistent: keep the workers from one pass to the next.
        views: makes the views of whole batches, which are `RawBatch`es then; by default the
            dataset makes those of an image.
        in_workers: see `RawImages`.
    """
    order: dict[str, Any]
    if even:
        order = {"batch_sampler": EvenBatches(sampler, batch_size)}  # type: ignore[arg-type]
    else:
        order = {"batch_size": batch_size, "sampler": sampler, "drop_last": drop_last}
        order["shuffle"] = shuffle if sampler is None else None
    return ViewLoader(
        _reader(
            dataset,
            views,
            in_workers,
            seed=seed,
            on_bad_image=on_bad_image,
            max_bad_images=max_bad_images,
        ),
        **order,
        num_workers=num_workers,
        collate_fn=collate if views is None else one_batch,
        pin_memory=torch.cuda.is_available(),
        persistent_workers=persistent and num_workers > 0,
        # the host's datasets are instances of a class local to a function: unpicklable
        multiprocessing_context="fork" if num_workers else None,
        worker_init_fn=leave_signals_to_parent,
    )


def _reader(
    dataset: SizedDataset, views: BatchViews | None, in_workers: bool, **given: Any
) -> SeededViews:
    """Return what reads a dataset: views of an image, or decoded images for views of a batch."""
    if views is None:
        return SeededViews(dataset, **given)
    return RawImages(dataset, views, in_workers=in_workers, **given)


def loader_in_bank_order(
    loader: DataLoader[Any], sampler: BankSampler, **views: Any
) -> DataLoader[Any]:
    """Return a loader like the host's, in the bank's order and with seeded views.

    Args:
        loader: the host's.
        sampler: the order.
        views: arguments of `SeededViews`.

    Raises:
        ValueError: if the loader's batches are larger than a rank's share of the images.
    """
    if loader.batch_size is None:
        raise ValueError("the training loader must make batches itself: set its batch_size")
    if loader.drop_last and loader.batch_size > len(sampler):
        raise ValueError(
            f"a batch of {loader.batch_size} images is more than the {len(sampler)} images of "
            f"an epoch: set optimizer.batch_size to at most {len(sampler)}"
        )
    workers: dict[str, Any] = {}
    if loader.num_workers:
        workers = {
            "prefetch_factor": loader.prefetch_factor,
            "persistent_workers": loader.persistent_workers,
            # the host's datasets are instances of a class local to a function: unpicklable
            "multiprocessing_context": "fork",
        }
    dataset: Any = loader.dataset
    raw = dataset if isinstance(dataset, RawImages) else None
    makes, in_workers = (raw.views, raw.in_workers) if raw is not None else (None, False)
    if isinstance(dataset, SeededViews):
        dataset = dataset.dataset
    return ViewLoader(
        _reader(dataset, makes, in_workers, **views),
        batch_size=loader.batch_size,
        sampler=sampler,
        num_workers=loader.num_workers,
        collate_fn=loader.collate_fn,
        pin_memory=loader.pin_memory and torch.cuda.is_available(),
        drop_last=loader.drop_last,
        timeout=loader.timeout,
        worker_init_fn=loader.worker_init_fn or leave_signals_to_parent,
        **workers,
    )
