"""The centered view that matches a random augmentation: same size, same normalisation."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from PIL import Image
from torchvision import transforms
from torchvision.transforms import v2

_SMALL = 64  # pixels


def center_view(augmentation: object) -> Callable[[Image.Image], torch.Tensor]:
    """Return a transform of an image to a tensor (C, H, W) like an augmentation's, but centered.

    Args:
        augmentation: torchvision transforms, alone or within the wrappers of either host.

    Raises:
        ValueError: if it has no random crop, or none of its parts normalises.
    """
    crop = _find(augmentation, transforms.RandomResizedCrop, transforms.Resize)
    size = crop.size[0] if isinstance(crop.size, (tuple, list)) else crop.size
    return transforms.Compose(
        [*center_crop(size), transforms.ToTensor(), find_normalize(augmentation)]
    )


def find_normalize(augmentation: object) -> transforms.Normalize:
    """Return the normalisation within an augmentation.

    Raises:
        ValueError: if it has none.
    """
    found = _find(augmentation, transforms.Normalize)
    return transforms.Normalize(list(found.mean), list(found.std))


def center_crop(size: int) -> list[transforms.Resize | transforms.CenterCrop]:
    """Return transforms to a square of `size` pixels, as ImageNet's evaluations do: 256 / 224.

    Below 64 pixels nothing is cut off: small images have no border to spare.
    """
    return [transforms.Resize(resized_side(size)), transforms.CenterCrop(size)]


def resized_side(size: int) -> int:
    """Return the shorter side in pixels from which evaluators and labels cut `size` pixels."""
    return size if size < _SMALL else with_border(size)


def with_border(size: int) -> int:
    """Return the shorter side that leaves ImageNet's border around a crop: 256 for 224 pixels."""
    return round(size * 256 / 224)


def _find(augmentation: object, *kinds: type) -> Any:
    """Return the first part of one of these kinds, or of the same kind of torchvision's v2."""
    both = (*kinds, *(getattr(v2, kind.__name__) for kind in kinds))
    for part in _parts(augmentation):
        if isinstance(part, both):
            return part
    raise ValueError(
        f"a centered view takes crop size and normalisation from the augmentation, and this one "
        f"has no {kinds[0].__name__}"
    )


def _parts(transform: object) -> Iterator[object]:
    """Iterate over a transform and everything that it is made of."""
    yield transform
    inner = getattr(transform, "transforms", None)
    if inner is None and hasattr(transform, "transform"):
        inner = [transform.transform]
    for part in inner or ():
        yield from _parts(part)
