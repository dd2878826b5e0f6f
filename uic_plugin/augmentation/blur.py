"""Gaussian blur, each image with a radius of its own, as Pillow makes it of bytes.

Pillow's Gaussian is three box blurs along the rows and three along the columns, whose boxes end in
fractions of a pixel; every pass is rounded to bytes, and the border is repeated.

Source: Pillow's `BoxBlur.c`; Gwosdek et al., "Theoretical foundations of Gaussian convolution by
extended box filtering" (2011).
"""

from __future__ import annotations

import numpy as np
import torch

from uic_plugin.augmentation.resample import to_bytes

_PASSES = 3
_UNIT = 2.0**15  # weights are multiples of its inverse: float32 holds every sum exactly


def gaussian_blur(images: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Return blurred images (B, 3, H, W), whole numbers in [0, 255].

    Args:
        images: whole numbers in [0, 255].
        weights: see `box_weights`; (B, R + 1).
    """
    for axis in (3, 2):
        for _ in range(_PASSES):
            images = _box(images, weights, axis)
    return images


def box_weights(sigmas: np.ndarray) -> np.ndarray:
    """Return the weights of one pass of the blur.

    Args:
        sigmas: (B,) standard deviations in pixels, above 0.

    Returns:
        (B, R + 1) float32, the weight of a pixel at distance 0, 1, ..., R from the one in the
        middle.
    """
    variance = sigmas**2 / _PASSES
    whole = np.floor((np.sqrt(12 * variance + 1) - 1) / 2)
    rest = (2 * whole + 1) * (whole * (whole + 1) - 3 * variance)
    rest /= 6 * (variance - (whole + 1) ** 2)
    full = 1 / (2 * (whole + rest) + 1)
    edge = (1 - (2 * whole + 1) * full) / 2
    distance = np.arange(int(whole.max()) + 2)
    weights = np.where(distance <= whole[:, None], full[:, None], 0.0)
    weights = np.where(distance == whole[:, None] + 1, edge[:, None], weights)
    return (np.rint(weights * _UNIT) / _UNIT).astype(np.float32)


def _box(images: torch.Tensor, weights: torch.Tensor, axis: int) -> torch.Tensor:
    """Return one pass along an axis."""
    length, reach = images.shape[axis], weights.shape[1] - 1
    first, last = images.narrow(axis, 0, 1), images.narrow(axis, length - 1, 1)
    wide = torch.cat([*[first] * reach, images, *[last] * reach], axis)
    by_distance = weights[:, :, None, None, None].unbind(1)
    total = images * by_distance[0]
    for distance in range(1, reach + 1):
        pair = wide.narrow(axis, reach - distance, length)
        pair = pair + wide.narrow(axis, reach + distance, length)
        total.add_(pair.mul_(by_distance[distance]))
    return to_bytes(total)
