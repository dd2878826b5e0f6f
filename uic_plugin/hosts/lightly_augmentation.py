"""A recipe's augmentations from lightly's and torchvision's transforms, an image to its crops.

The operations and their order are those of solo-learn's pipelines, so that a recipe means the same
under every host, and views of whole batches (`uic_plugin.augmentation`) can take their place.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from lightly.transforms.gaussian_blur import GaussianBlur as _GaussianBlur
from lightly.transforms.solarize import RandomSolarization
from lightly.transforms.utils import IMAGENET_NORMALIZE
from omegaconf import DictConfig
from PIL import Image, ImageOps
from torchvision import transforms

_IMAGENET = (IMAGENET_NORMALIZE["mean"], IMAGENET_NORMALIZE["std"])
# size of the images in pixels, mean and standard deviation of their pixels
PRESETS: dict[str, tuple[int, Sequence[float], Sequence[float]]] = {
    "cifar10": (32, (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": (32, (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
    "stl10": (96, (0.4914, 0.4823, 0.4466), (0.247, 0.243, 0.261)),
    "imagenet100": (224, *_IMAGENET),
    "imagenet": (224, *_IMAGENET),
}


class GaussianBlur(_GaussianBlur):
    """lightly's blur, always applied; the pipeline around it draws whether.

    Attributes:
        sigma: range of the kernel's standard deviation in pixels.
    """

    def __init__(self) -> None:
        self.sigma = (0.1, 2.0)
        super().__init__(prob=1.0, sigmas=self.sigma)


class Solarization:
    """lightly's solarization, always applied."""

    def __init__(self) -> None:
        self.transform = RandomSolarization(prob=1.0)

    def __call__(self, image: Image.Image) -> Image.Image:
        """Return the image solarized."""
        return self.transform(image)


class Equalization:
    """Pillow's equalization of an image's histogram."""

    def __call__(self, image: Image.Image) -> Image.Image:
        """Return the image equalized."""
        return ImageOps.equalize(image)


class Crops:
    """Makes some crops of an image by one transform.

    Args:
        transform: an image to a crop (C, H, W).
        num_crops: number of crops.
    """

    def __init__(self, transform: Callable[[Image.Image], torch.Tensor], num_crops: int) -> None:
        self.transform, self.num_crops = transform, num_crops

    def __call__(self, image: Image.Image) -> list[torch.Tensor]:
        """Return the crops, (C, H, W) each."""
        return [self.transform(image) for _ in range(self.num_crops)]


class AllCrops:
    """Makes the crops of all pipelines of a recipe.

    Args:
        transforms: one for each pipeline.
    """

    def __init__(self, transforms: list[Crops]) -> None:
        self.transforms = transforms

    def __call__(self, image: Image.Image) -> list[torch.Tensor]:
        """Return the crops of all pipelines in order."""
        return [crop for part in self.transforms for crop in part(image)]


def augmentation(dataset: str, pipelines: Sequence[DictConfig]) -> AllCrops:
    """Return the augmentation of a recipe's pipelines."""
    return AllCrops([Crops(_pipeline(dataset, cfg), cfg.num_crops) for cfg in pipelines])


def _pipeline(dataset: str, cfg: DictConfig) -> transforms.Compose:
    """Return one pipeline, an image to a crop."""
    bicubic = transforms.InterpolationMode.BICUBIC
    scale = (cfg.rrc.crop_min_scale, cfg.rrc.crop_max_scale)
    first = (
        transforms.RandomResizedCrop(cfg.crop_size, scale=scale, interpolation=bicubic)
        if cfg.rrc.enabled
        else transforms.Resize(cfg.crop_size, interpolation=bicubic)
    )
    jitter = cfg.color_jitter
    strengths = [jitter.get(name, 0.0) for name in ("brightness", "contrast", "saturation", "hue")]
    # each has a probability, and is left out where that is 0
    known: dict[str, Callable[[float], Any]] = {
        "color_jitter": lambda p: transforms.RandomApply([transforms.ColorJitter(*strengths)], p),
        "grayscale": transforms.RandomGrayscale,
        "gaussian_blur": lambda p: transforms.RandomApply([GaussianBlur()], p),
        "solarization": lambda p: transforms.RandomApply([Solarization()], p),
        "equalization": lambda p: transforms.RandomApply([Equalization()], p),
        "horizontal_flip": transforms.RandomHorizontalFlip,
    }
    probabilities = {name: cfg.get(name, {}).get("prob", 0.0) for name in known}
    parts = [known[name](share) for name, share in probabilities.items() if share]
    mean, std = _normalisation(dataset, cfg)
    return transforms.Compose(
        [first, *parts, transforms.ToTensor(), transforms.Normalize(mean, std)]
    )


def _normalisation(dataset: str, cfg: DictConfig) -> tuple[list[float], list[float]]:
    """Return mean and standard deviation: a known dataset's, or the recipe's, or ImageNet's."""
    if dataset in PRESETS:
        _, mean, std = PRESETS[dataset]
    else:
        mean, std = cfg.get("mean", _IMAGENET[0]), cfg.get("std", _IMAGENET[1])
    return list(mean), list(std)
