"""Pictures of classes during training: a random sample of classes and of their images.

Finding the most confident images would need another pass, and a random sample is representative.
`uic classes` shows the classes of lowest entropy of a label file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from uic_plugin.data.center import find_normalize
from uic_plugin.data.views import BAD_IMAGE_ERRORS
from uic_plugin.report.figures import plot_class_sizes, plot_classes
from uic_plugin.seeding import derive_seed

_CLASSES = 12  # rows of a picture
_COLUMNS = 12  # images in a row
_TILE = 48  # pixels


class ClassPictures:
    """Pictures of a run's classes, one PNG per requested epoch.

    Args:
        dataset: the training images with a centered view, items [index, view (C, H, W), ...].
        folder: of `epoch0010.png` and `epoch0010_sizes.png`.
        seed: of the run; the same classes are shown as long as they have images.
    """

    def __init__(self, dataset: Any, folder: Path, seed: int) -> None:
        self.dataset, self.folder, self.seed = dataset, folder, seed
        normalize = find_normalize(dataset.transform)
        self.mean, self.std = (
            torch.as_tensor(list(values), dtype=torch.float32).view(1, -1, 1, 1)
            for values in (normalize.mean, normalize.std)
        )

    def draw(self, labels: np.ndarray, sizes: np.ndarray, epoch: int) -> Path | None:
        """Draw the classes of an epoch.

        Args:
            labels: (N,) pseudo labels in [0, K).
            sizes: (K,) images per class.
            epoch: counted from 1.

        Returns:
            The PNG, or None if none of its images can be read.
        """
        chosen = some_classes(sizes, _CLASSES, self.seed)
        members = some_members(labels, chosen, _COLUMNS, derive_seed(self.seed, "shown", epoch))
        readable, tiles = self._tiles(members)
        if not len(readable):
            return None
        self.folder.mkdir(parents=True, exist_ok=True)
        return plot_classes(
            tiles,
            labels[readable],
            np.zeros(len(readable)),  # keeps the order of the draw
            self.folder / f"epoch{epoch:04d}.png",
            sizes=sizes,
            order=chosen,
            columns=_COLUMNS,
            blocks=1 if len(chosen) < 8 else 2,
        )

    def draw_sizes(self, sizes: np.ndarray, epoch: int) -> Path:
        """Draw the histogram of class sizes (K,) of an epoch, counted from 1."""
        self.folder.mkdir(parents=True, exist_ok=True)
        return plot_class_sizes(sizes, self.folder / f"epoch{epoch:04d}_sizes.png")

    def _tiles(self, members: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
        """Return which images can be read, and those as (H, W, 3) uint8."""
        readable, views = [], []
        for member in members:  # a picture's few images
            try:
                views.append(self.dataset[int(member)][1])
            except BAD_IMAGE_ERRORS:
                continue
            readable.append(member)
        if not views:
            return members[:0], []
        pixels = (torch.stack(views) * self.std + self.mean).clamp(0, 1)
        pixels = F.interpolate(pixels, (_TILE, _TILE), mode="bilinear", antialias=True)
        pixels = (pixels.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1)
        return np.asarray(readable), list(pixels.expand(-1, -1, -1, 3).numpy())


def some_classes(sizes: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Draw at most `count` non-empty classes by the seed alone; return them in ascending order.

    A class stays in the picture, to be compared over epochs, until it is empty.

    Args:
        sizes: (K,) images per class.
        count: maximum number of classes.
        seed: of the run.
    """
    order = np.random.default_rng(derive_seed(seed, "shown classes")).permutation(len(sizes))
    return np.sort(order[sizes[order] > 0][:count])


def some_members(labels: np.ndarray, chosen: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Draw at most `count` images of each chosen class; return their indices, class by class.

    Args:
        labels: (N,) pseudo labels.
        chosen: classes, ascending.
        count: maximum number of images per class.
        seed: of the draw.
    """
    members = np.flatnonzero(np.isin(labels, chosen))
    members = np.random.default_rng(seed).permutation(members)
    members = members[np.argsort(labels[members], kind="stable")]
    classes, starts = np.unique(labels[members], return_index=True)
    rank = np.arange(len(members)) - starts[np.searchsorted(classes, labels[members])]
    return members[rank < count]
