"""Random views that depend on (seed, epoch, position in the order) and on nothing else.

They do not depend on the number of workers or ranks, nor on where a run was resumed.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import struct
import warnings
import zlib
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch.utils.data import Dataset

from uic_plugin.data.images import BadImageError, path_of
from uic_plugin.data.listed import decode
from uic_plugin.pseudo_labels import Draw
from uic_plugin.seeding import derive_seed

# Pillow raises these for files that are not images, or damaged
BAD_IMAGE_ERRORS = (
    UnidentifiedImageError,
    Image.DecompressionBombError,
    OSError,
    SyntaxError,
    EOFError,
    struct.error,
    zlib.error,
)


def _is_damaged(path: str) -> bool:
    """Return whether a file is there and cannot be decoded."""
    try:
        decode(path)
    except BAD_IMAGE_ERRORS:
        return os.path.isfile(path)
    return False


class SizedDataset(Protocol):
    """A dataset of known length, with items of any kind."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Any: ...


class SharedCount:
    """A number that loader workers count up together.

    It is copied and pickled by its value, so that a module that has it can be: what counts is
    shared with the (forked) workers of the original alone.

    Attributes:
        value: the number.
    """

    def __init__(self, value: int = 0) -> None:
        self._shared: Any = multiprocessing.get_context("fork").Value("q", value)

    @property
    def value(self) -> int:
        """The number now."""
        return int(self._shared.value)

    @value.setter
    def value(self, value: int) -> None:
        self._shared.value = value

    def add(self) -> int:
        """Count one more, and return the number."""
        with self._shared.get_lock():
            self._shared.value += 1
            return int(self._shared.value)

    def __reduce__(self) -> tuple[type[SharedCount], tuple[int]]:
        return SharedCount, (self.value,)


class SeededViews(Dataset[Any]):
    """A dataset whose random augmentation is seeded for each draw, and which names bad images.

    Args:
        dataset: the host's, with items [index, views, annotation].
        seed: of the run.
        on_bad_image: "stop" raises `BadImageError`; "skip" warns and uses the next readable image
            instead, so that the unreadable one keeps its label.
        max_bad_images: with "skip", raise `BadImageError` when more images than this are skipped
            in a pass; None for no limit.

    Attributes:
        bad_images: number of skipped images, shared by all workers.
    """

    def __init__(
        self,
        dataset: SizedDataset,
        *,
        seed: int,
        on_bad_image: str = "stop",
        max_bad_images: int | None = None,
    ) -> None:
        self.dataset = dataset
        self.seed = seed
        self.on_bad_image = on_bad_image
        self.max_bad_images = max_bad_images
        self.bad_images = SharedCount()

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        if not isinstance(index, Draw):
            return self._read(index)
        seed = derive_seed(self.seed, "view", index.epoch, index.position)
        # Without workers this runs in the training process, whose dropout must not change. Dropout
        # draws from torch only; saving the other two states would cost more than a small image.
        kept = torch.get_rng_state()
        torch.default_generator.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed & 0xFFFFFFFF)
        try:
            return self._read(int(index))
        finally:
            torch.set_rng_state(kept)

    def _item(self, index: int) -> Any:
        return self.dataset[index]

    def _read(self, index: int) -> Any:
        for step in range(len(self)):
            candidate = (index + step) % len(self)
            try:
                return self._item(candidate)
            except (*BAD_IMAGE_ERRORS, ValueError) as error:
                path = path_of(self.dataset, candidate)
                if not isinstance(error, BAD_IMAGE_ERRORS) and not _is_damaged(path):
                    raise  # of a transform
                reason = "not an image" if isinstance(error, UnidentifiedImageError) else str(error)
                if self.on_bad_image == "stop":
                    raise BadImageError(
                        f"cannot read {path} ({reason}): repair or remove it, or train without it: "
                        f"data.on_bad_image=skip (method_kwargs.on_bad_image=skip in the host's "
                        f"own scripts)"
                    ) from error
                warnings.warn(f"skipped unreadable image {path} ({reason})", stacklevel=2)
                count = self.bad_images.add()
                if self.max_bad_images is not None and count > self.max_bad_images:
                    raise BadImageError(
                        f"{count} images could not be read in this epoch, the last was {path} "
                        f"({reason}): fix them, or raise data.max_bad_images="
                        f"{self.max_bad_images} (method_kwargs.max_bad_images in the host's own "
                        f"scripts)"
                    ) from error
        raise BadImageError(f"none of the {len(self)} images can be read")
