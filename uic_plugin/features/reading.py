"""Images as a frozen network takes them, with the facts of their files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch.utils.data import Dataset
from torchvision import transforms
from torchvision.transforms import functional

from uic_plugin.data.listed import opened
from uic_plugin.data.packed import ABOUT_FILE, PackedByPath, is_packed
from uic_plugin.data.rgb import as_rgb
from uic_plugin.data.views import BAD_IMAGE_ERRORS
from uic_plugin.features.store import Entry, FileFacts
from uic_plugin.networks.pretrained import Backbone

Item = tuple[Entry, torch.Tensor | None]
Batch = tuple[list[Entry], torch.Tensor | None]
_ENDS = (["ToTensor", "Normalize"], ["MaybeToTensor", "Normalize"])  # the latter is timm's


def facts_of(root: Path) -> Callable[[str], FileFacts]:
    """Return a function from a name below a folder to the facts of its file.

    The images of a packed folder have the facts of the whole folder. The function raises an
    OSError for a file that is gone.
    """
    if is_packed(root):
        facts = FileFacts.of(root / ABOUT_FILE)
        return lambda name: facts
    return lambda name: FileFacts.of(root / name)


class Preprocessing:
    """A transform of images in two parts: one for each image, one for a batch of them.

    Where a transform ends in a conversion to a tensor and a normalisation, these are done for a
    whole batch, with the same results: an image then passes between processes at a quarter of the
    bytes, and in the order of values that a network on the CPU takes.

    Args:
        transform: an RGB image to a tensor (3, H, W).
    """

    def __init__(self, transform: Callable[[Image.Image], torch.Tensor]) -> None:
        self._transform = transform
        self._normalize: transforms.Normalize | None = None
        steps: list[Any] = list(getattr(transform, "transforms", []))
        if [type(step).__name__ for step in steps[-2:]] in _ENDS:
            self._transform, self._normalize = transforms.Compose(steps[:-2]), steps[-1]

    def of_image(self, image: Image.Image) -> torch.Tensor:
        """Return an RGB image's pixels (H, W, 3) uint8, or its view (3, H, W)."""
        if self._normalize is None:
            return self._transform(image)
        return torch.from_numpy(np.array(self._transform(image)))

    def of_batch(self, views: torch.Tensor) -> torch.Tensor:
        """Return the views (B, 3, H, W) float32 of what `of_image` returned for a batch."""
        if self._normalize is None or views.dtype != torch.uint8:
            return views
        values = views.permute(0, 3, 1, 2).float().div_(255)
        mean, std = self._normalize.mean, self._normalize.std
        return functional.normalize(values, mean, std, inplace=True)


class FrozenImages(Dataset[Item]):
    """Images with their entries in a store, as `Preprocessing.of_image` returns them.

    An unreadable image has a reason in its entry, and nothing else.

    Args:
        root: the folder, or a packed one.
        names: N paths below it.
        backbone: whose preprocessing makes the views.
    """

    def __init__(self, root: Path, names: Sequence[str], backbone: Backbone) -> None:
        self.root, self.names = root, names
        self.preprocessing, self.side = Preprocessing(backbone.transform), backbone.shorter_side
        self._packed = PackedByPath(root) if is_packed(root) else None
        self._facts = facts_of(root)

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Item:
        name = self.names[index]
        try:
            facts = self._facts(name)
        except OSError as error:
            return Entry(name, FileFacts(0, 0), None, str(error)), None
        try:
            return Entry(name, facts, None), self.preprocessing.of_image(self._image(name))
        except BAD_IMAGE_ERRORS as error:
            is_none = isinstance(error, UnidentifiedImageError)
            return Entry(name, facts, None, "not an image" if is_none else str(error)), None

    def _image(self, name: str) -> Image.Image:
        if self._packed is not None:
            return self._packed.image(name)
        with opened(self.root / name) as image:
            # JPEGs are decoded at a fraction of their size, still above twice the view's
            image.draft("RGB", (2 * self.side, 2 * self.side))
            return as_rgb(image)


def collate(items: Sequence[Item]) -> Batch:
    """Return the entries of a batch, and the views of those images that have one, if there are."""
    views = [view for _, view in items if view is not None]
    return [entry for entry, _ in items], torch.stack(views) if views else None
