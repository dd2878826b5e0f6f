"""Changes of colour, each image with a strength of its own, as Pillow makes them of bytes.

Images are float32 planes (B, 3, H, W) that hold whole numbers in [0, 255]. Pillow rounds to bytes
after every operation, and hue passes through bytes of hue, saturation and value; so do these.

Source: Pillow's `ImageEnhance`, `Blend.c` and `Convert.c`; torchvision's `adjust_hue`.
"""

from __future__ import annotations

import functools

import numpy as np
import torch
from PIL import Image
from torchvision.transforms.v2.functional import equalize_image

_EXACT = 1 << 24  # up to which float32 holds every whole number
_SPAN, _SECTOR = 511, 256 * 511  # steps in the table of hues
_NUDGE = 1e-4  # a saturation that is a whole number of bytes may have come out below it


def luma(images: torch.Tensor) -> torch.Tensor:
    """Return the brightness (B, 1, H, W) of images (B, 3, H, W), whole numbers in [0, 255]."""
    red, green, blue = (images[:, channel : channel + 1] for channel in range(3))
    total = red * 19595.0
    total.add_(green * 38470.0).add_(blue * 7471.0).add_(32768.0)
    return total.mul_(1 / 65536).floor_()


def grayscale(images: torch.Tensor) -> torch.Tensor:
    """Return images (B, 3, H, W) without colour."""
    return luma(images).expand_as(images)


def blend(
    images: torch.Tensor, factors: torch.Tensor, to_mean: torch.Tensor, to_gray: torch.Tensor
) -> torch.Tensor:
    """Move images (B, 3, H, W) away from black, their mean or their gray version, in place.

    Args:
        images: whole numbers in [0, 255].
        factors: (B, 1, 1, 1) >= 0, what the distance is multiplied by.
        to_mean: (B, 1, 1, 1), 1 for contrast: the distance from the mean brightness; else 0.
        to_gray: (B, 1, 1, 1), 1 for saturation: the distance from the gray version; else 0. With
            both 0 it is that from black, which is brightness.
    """
    gray = luma(images)
    pixels = gray.shape[2] * gray.shape[3]
    # a sum that float32 holds exactly does not depend on the order of its terms
    exact = torch.float32 if pixels * 255 < _EXACT else torch.float64
    mean = (gray.sum((2, 3), keepdim=True, dtype=exact) / pixels).add_(0.5).floor_().float()
    origin = gray.mul_(to_gray).add_(mean.mul_(to_mean))
    return images.sub_(origin).mul_(factors).add_(origin).clamp_(0, 255).floor_()


def turn_hue(images: torch.Tensor, shifts: torch.Tensor) -> torch.Tensor:
    """Return images (B, 3, H, W) of another hue.

    Args:
        images: with the colours.
        shifts: (B, 1, 1, 1) uint8, in 255ths of the circle; 255 is one back.
    """
    red, green, blue = (images[:, channel : channel + 1] for channel in range(3))
    value = torch.maximum(torch.maximum(red, green), blue)
    span = value - torch.minimum(torch.minimum(red, green), blue)
    # the sector of the largest channel; of equal ones the first counts
    is_red = (red == value).float()
    is_green = (green == value).float().mul_(1 - is_red)
    entry = (red - green).add_(2 * _SECTOR)  # that of blue
    entry.add_((blue - red).add_(_SECTOR).sub_(entry).mul_(is_green))
    entry.add_((green - blue).sub_(entry).mul_(is_red))
    entry.add_(span * _SPAN).add_(255)
    hue = _hues(images.device).take(entry.long()).add_(shifts).float()  # wraps around at 256
    saturation = span.mul_(255).div_(value.clamp(min=1.0)).add_(_NUDGE).floor_()
    depth = saturation.mul_(value).mul_(1 / 255)
    offsets = _offsets(images.device)
    wheel = hue.mul_(6 / 255) + offsets
    wheel.sub_((wheel * (1 / 6)).floor_().mul_(6))
    part = torch.minimum(wheel, 4 - wheel).clamp_(0, 1)
    return part.mul_(depth).neg_().add_(value).add_(0.5).floor_()


@functools.lru_cache(maxsize=8)
def _offsets(device: torch.device) -> torch.Tensor:
    """Return where red, green and blue begin on the circle of hues, in its sixths."""
    return torch.tensor([5.0, 3.0, 1.0]).view(1, 3, 1, 1).to(device)


@functools.lru_cache(maxsize=8)
def _hues(device: torch.device) -> torch.Tensor:
    """Return Pillow's byte of hue for sector, span and difference of the two other channels.

    It is a fraction whose last bits decide where it lies between two bytes; the table holds what
    Pillow itself makes of each, (3 * 256 * 511,) uint8.
    """
    span = np.arange(256)[:, None]
    difference = np.arange(-255, 256)
    second = 255 - span + np.clip(difference, 0, span)
    third = 255 - span + np.clip(-difference, 0, span)
    first = np.full_like(second, 255)
    colours = [(first, second, third), (third, first, second), (second, third, first)]
    pixels = np.stack([np.stack(colour, -1) for colour in colours]).astype(np.uint8)
    table = Image.fromarray(pixels.reshape(3 * 256, 511, 3)).convert("HSV").getchannel("H")
    return torch.from_numpy(np.array(table).reshape(-1)).to(device)


def solarize(images: torch.Tensor) -> torch.Tensor:
    """Invert the pixels from 128 on of images (B, 3, H, W)."""
    return torch.where(images >= 128, 255 - images, images)


def equalize(images: torch.Tensor) -> torch.Tensor:
    """Equalize the histogram of each channel of images (B, 3, H, W)."""
    return equalize_image(images.to(torch.uint8)).float()
