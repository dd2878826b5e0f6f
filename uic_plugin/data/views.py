"""Random views that depend on (seed, epoch, place in the order) and on nothing else.

Not on the number of workers, of ranks, or on where a run was resumed.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import random
import signal
import struct
import threading
import warnings
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch.utils.data import DataLoader, Dataset, DistributedSampler, Sampler

from uic_plugin.data.images import BadImageError, path_of
from uic_plugin.pseudo_labels import BankSampler
from uic_plugin.seeding import derive_seed

# what Pillow raises for a file that is no image, or a broken one
BAD_IMAGE_ERRORS = (
    UnidentifiedImageError,
    Image.DecompressionBombError,
    OSError,
    SyntaxError,
    EOFError,
    struct.error,
    zlib.error,
)


class Draw(int):
    """An image index that knows when it was drawn: epoch, and place in the common order."""

    epoch: int
    place: int

    @classmethod
    def at(cls, index: int, epoch: int, place: int) -> Draw:
        """An image drawn in `epoch`, at `place` of the common order."""
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


class SeededViews(Dataset[Any]):
    """A dataset whose random augmentation is seeded for each draw, and which names bad images.

    Args:
        dataset: the host's, item [index, views, annotation].
        seed: of the run.
        on_bad_image: "stop" raises `BadImageError`; "skip" warns and takes the next readable
            image in its place, so that the unreadable one keeps its label.
        max_bad_images: with "skip", raises `BadImageError` once more than so many were skipped
            in a pass; None: no limit.

    Attributes:
        bad_images: a count of skipped images, one for all workers.
    """

    def __init__(
        self,
        dataset: Any,
        *,
        seed: int,
        on_bad_image: str = "stop",
        max_bad_images: int | None = None,
    ) -> None:
        self.dataset = dataset
        self.seed = seed
        self.on_bad_image = on_bad_image
        self.max_bad_images = max_bad_images
        self.bad_images: Any = multiprocessing.get_context("fork").Value("q", 0)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        if not isinstance(index, Draw):
            return self._read(index)
        seed = derive_seed(self.seed, "view", index.epoch, index.place)
        # With no workers this runs in the training process, whose dropout must not notice. It
        # draws from torch alone; saving the other two states would cost more than a small image.
        kept = torch.get_rng_state()
        torch.default_generator.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed & 0xFFFFFFFF)
        try:
            return self._read(int(index))
        finally:
            torch.set_rng_state(kept)

    def _read(self, index: int) -> Any:
        for step in range(len(self)):
            place = (index + step) % len(self)
            try:
                return self.dataset[place]
            except BAD_IMAGE_ERRORS as error:
                path = path_of(self.dataset, place)
                reason = "not an image" if isinstance(error, UnidentifiedImageError) else str(error)
                if self.on_bad_image == "stop":
                    raise BadImageError(
                        f"cannot read {path} ({reason}): mend or remove it, or train without it: "
                        f"data.on_bad_image=skip (method_kwargs.on_bad_image=skip in the host's "
                        f"own scripts)"
                    ) from error
                warnings.warn(f"skipped unreadable image {path} ({reason})", stacklevel=2)
                with self.bad_images.get_lock():
                    self.bad_images.value += 1
                    count = self.bad_images.value
                if self.max_bad_images is not None and count > self.max_bad_images:
                    raise BadImageError(
                        f"{count} images could not be read in this epoch, the last was {path} "
                        f"({reason}): mend them, or raise data.max_bad_images="
                        f"{self.max_bad_images} (method_kwargs.max_bad_images in the host's own "
                        f"scripts)"
                    ) from error
        raise BadImageError(f"none of the {len(self)} images can be read")


class ViewLoader(DataLoader[Any]):
    """A loader of `SeededViews` that counts unreadable images anew in every pass."""

    def __iter__(self) -> Any:
        dataset: Any = self.dataset
        dataset.bad_images.value = 0
        return super().__iter__()


def leave_signals_to_parent(worker: int) -> None:
    """Let a worker leave Ctrl-C and SIGTERM to the training process, which ends it in order.

    A request to stop may go to all processes of a job. SIGTERM of the training process itself is
    how it ends a worker.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):  # says who sent it; a handler in Python is not told
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()


def _end_with_parent(parent: int) -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
        pass
    os._exit(0)


def view_loader(
    dataset: Any,
    *,
    seed: int,
    batch_size: int,
    num_workers: int = 0,
    on_bad_image: str = "stop",
    max_bad_images: int | None = None,
    sampler: Any = None,
    shuffle: bool = False,
    drop_last: bool = False,
    even: bool = False,
) -> DataLoader[Any]:
    """Batches of a dataset with seeded views, which names bad images.

    Args:
        dataset: its items may be of any kind.
        seed, on_bad_image, max_bad_images: see `SeededViews`.
        batch_size, num_workers, sampler, shuffle, drop_last: see `DataLoader`.
        even: batches of nearly equal size, none above `batch_size`, of a given `sampler`.
    """
    order: dict[str, Any]
    if even:
        order = {"batch_sampler": EvenBatches(sampler, batch_size)}
    else:
        order = {"batch_size": batch_size, "sampler": sampler, "drop_last": drop_last}
        order["shuffle"] = shuffle if sampler is None else None
    return ViewLoader(
        SeededViews(dataset, seed=seed, on_bad_image=on_bad_image, max_bad_images=max_bad_images),
        **order,
        num_workers=num_workers,
        pin_memory=torch.cuda.is_available(),
        # the host's datasets are instances of a class local to a function: unpicklable
        multiprocessing_context="fork" if num_workers else None,
        worker_init_fn=leave_signals_to_parent,
    )


def loader_in_bank_order(
    loader: DataLoader[Any], sampler: DrawSampler, **views: Any
) -> DataLoader[Any]:
    """The same loader, in the bank's order and with seeded views.

    Args:
        loader: the host's.
        sampler: the order.
        views: for `SeededViews`.

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
    dataset = loader.dataset
    if isinstance(dataset, SeededViews):
        dataset = dataset.dataset
    return ViewLoader(
        SeededViews(dataset, **views),
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
