"""A share of the training images, kept apart to judge settings on instead of the test images.

Which images those are follows from their number and the share alone: every run of a comparison, and
its evaluation, takes the same ones. No annotation takes part.
"""

from __future__ import annotations

import hashlib
from typing import Any, Literal

import numpy as np
from torchvision.datasets import STL10

from uic_plugin.data.images import names_fingerprint
from uic_plugin.data.listed import ListedImages
from uic_plugin.data.packed import PackedImages
from uic_plugin.seeding import derive_seed

Part = Literal["rest", "held_out"]


def held_out_numbers(count: int, share: float, part: Part) -> np.ndarray:
    """Return the sorted numbers of the images that are held out, or of the rest.

    Args:
        count: number of images N.
        share: that is held out, in (0, 1), rounded to at least one image.
        part: which of the two.

    Raises:
        ValueError: for a share that is no number in (0, 1), or that leaves no image to train on.
    """
    if type(share) not in (int, float) or not 0 < share < 1:
        raise ValueError(f"data.held_out must be 0, or lie between 0 and 1, got {share!r}")
    held = max(1, round(count * share))
    if held >= count:
        raise ValueError(f"data.held_out={share} leaves none of the {count} images to train on")
    order = np.random.default_rng(derive_seed(0, "held-out images", count)).permutation(count)
    return np.sort(order[:held] if part == "held_out" else order[held:])


def keep_part(dataset: Any, share: float, part: Part) -> Any:
    """Return a dataset of images with one of its two parts.

    Args:
        dataset: a folder of images, with or without classes or packed, arrays, or a list; all but
            the list are changed in place.
        share: that is held out, see `held_out_numbers`.
        part: which of the two.

    Raises:
        ValueError: for images of another kind, and for STL-10, of which training reads others than
            evaluation.
    """
    if isinstance(dataset, STL10):  # 105,000 images to train on, of which 5,000 are annotated
        raise ValueError(
            f"data.held_out={share} does not work on STL-10: training reads its unlabelled images, "
            f"too, and would train on those that evaluation holds out; set data.held_out=0, where "
            f"its test images judge, or write its images as a folder (uic compare: leave out "
            f"--tune and --held-out)"
        )
    numbers = held_out_numbers(len(dataset), share, part)
    if isinstance(dataset, PackedImages):
        dataset.keep(numbers)
        return dataset
    if isinstance(dataset, ListedImages):
        return PartOfList(dataset, numbers)
    if hasattr(dataset, "samples"):
        dataset.samples = [dataset.samples[number] for number in numbers]
        dataset.targets = [target for _, target in dataset.samples]
    elif isinstance(getattr(dataset, "images", None), list):
        dataset.images = [dataset.images[number] for number in numbers]
    elif isinstance(getattr(dataset, "data", None), np.ndarray):
        name = "labels" if hasattr(dataset, "labels") else "targets"
        dataset.data = dataset.data[numbers]
        setattr(dataset, name, np.asarray(getattr(dataset, name))[numbers])
    else:
        raise ValueError(
            f"data.held_out does not work on {type(dataset).__name__}: use a folder of images, an "
            f"index or Parquet files"
        )
    return dataset


class PartOfList(ListedImages):
    """Some of the images of a list.

    Args:
        whole: the list.
        numbers: (M,) of those images in it.
    """

    def __init__(self, whole: ListedImages, numbers: np.ndarray) -> None:
        super().__init__(whole.root, whole.transform, with_number=whole.with_number)
        self.whole, self.numbers = whole, numbers
        self.names_are_paths = whole.names_are_paths
        self.targets = np.asarray(whole.targets)[numbers]
        names = self.names()
        if names is not None:  # as of a folder of these images
            self.fingerprint = names_fingerprint(names)
        else:
            digest = hashlib.blake2b(whole.fingerprint.encode(), digest_size=8)
            digest.update(np.ascontiguousarray(numbers, dtype=np.int64).tobytes())
            self.fingerprint = digest.hexdigest()

    def load(self, number: int) -> Any:
        """Return an image, decoded, RGB."""
        return self.whole.load(int(self.numbers[number]))

    def name(self, number: int) -> str:
        """Return the name that it has in the whole list."""
        return self.whole.name(int(self.numbers[number]))

    def names(self) -> list[str] | None:
        """Return the paths of these images below the root, or None if they are not files."""
        names = self.whole.names()
        return None if names is None else [names[number] for number in self.numbers]
