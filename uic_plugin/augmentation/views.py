"""Views of a whole batch at once: decoded images in, normalised views out.

    views = RandomViews((Pipeline(size=32, mean=MEAN, std=STD, flip_prob=0.5),), seed=0)
    pixels = Pixels.of([image, ...])                     # each (H, W, 3) uint8, of any sizes
    first, *others = views(pixels, epochs, positions)    # each (B, 3, 32, 32) float32

What an image's views look like depends on (seed, epoch, position in the epoch's order, view) and on
the image, and on nothing else.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from uic_plugin.augmentation import colour
from uic_plugin.augmentation.blur import box_weights, gaussian_blur
from uic_plugin.augmentation.draws import uniforms
from uic_plugin.augmentation.pipeline import (
    BRIGHTNESS,
    CONTRAST,
    HUE,
    NUM_UNIFORMS,
    SATURATION,
    Parameters,
    Pipeline,
    center_boxes,
    draw_parameters,
)
from uic_plugin.augmentation.pixels import Pixels
from uic_plugin.augmentation.resample import resample

_CACHED = 1 << 18  # numbers in the views that a CPU works on at once
_ADJUST = {
    BRIGHTNESS: colour.adjust_brightness,
    CONTRAST: colour.adjust_contrast,
    SATURATION: colour.adjust_saturation,
}


class BatchViews(Protocol):
    """Makes views of the images of a batch."""

    def __call__(
        self, pixels: Pixels, epochs: np.ndarray, positions: np.ndarray
    ) -> list[torch.Tensor]:
        """Return the views, each (B, 3, S, S) float32, on the device of the pixels.

        Args:
            pixels: the images.
            epochs: (B,) int64, epoch in which each was drawn.
            positions: (B,) int64, its position in the order of that epoch.
        """


@dataclass(frozen=True)
class RandomViews:
    """Random views of one or several pipelines.

    Attributes:
        pipelines: each makes its `count` views, in order.
        seed: of the run.
    """

    pipelines: tuple[Pipeline, ...]
    seed: int

    def __call__(
        self, pixels: Pixels, epochs: np.ndarray, positions: np.ndarray
    ) -> list[torch.Tensor]:
        """Return the views; see `BatchViews`."""
        kinds = [pipeline for pipeline in self.pipelines for _ in range(pipeline.count)]
        views = []
        for number, pipeline in enumerate(kinds):
            rows = uniforms(self.seed, epochs, positions, number, NUM_UNIFORMS)
            views.append(augment(pixels, pipeline, draw_parameters(pipeline, pixels.sizes, rows)))
        return views


@dataclass(frozen=True)
class CenterViews:
    """Centered views, without augmentation.

    Attributes:
        size: pixels of a view's side.
        side: pixels that the shorter side of an image is resized to before.
        mean: (3,) of the normalisation, for pixels in [0, 1].
        std: (3,) of the normalisation.
    """

    size: int
    side: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def __call__(
        self, pixels: Pixels, epochs: np.ndarray, positions: np.ndarray
    ) -> list[torch.Tensor]:
        """Return one view of each image; see `BatchViews`."""
        boxes = center_boxes(pixels.sizes, self.side, self.size)
        views = resample(pixels, boxes, self.size, "bilinear")
        return [normalize(views, self.mean, self.std)]


def augment(pixels: Pixels, pipeline: Pipeline, parameters: Parameters) -> torch.Tensor:
    """Return one view of each image with given parameters, (B, 3, S, S) float32."""
    views = resample(pixels, parameters.boxes, pipeline.size, pipeline.interpolation)
    if views.device.type == "cpu":  # parts that stay in its cache
        step = max(1, _CACHED // views[0].numel())
        for first in range(0, len(views), step):
            part = slice(first, first + step)
            _recolour(views[part], _part(parameters, part))
    else:
        _recolour(views, parameters)
    return normalize(views, pipeline.mean, pipeline.std)


def _part(parameters: Parameters, images: slice) -> Parameters:
    return Parameters(**{name: values[images] for name, values in vars(parameters).items()})


def _recolour(views: torch.Tensor, parameters: Parameters) -> None:
    """Apply everything between crop and normalisation, in place."""
    order = parameters.order
    # Hue is the longest, so it is done at once: what an image has before it, hue, what comes after.
    hue = np.where((order == HUE).any(1), (order == HUE).argmax(1), 4)
    for number in range(4):
        _adjust(views, parameters, np.where(number < hue, order[:, number], -1))
    shifts = np.trunc(parameters.factors[:, HUE] * 255).astype(np.int64).astype(np.uint8)
    chosen = np.flatnonzero(hue < 4)
    _change(views, chosen, colour.adjust_hue, _column(shifts[chosen], views))
    for number in range(1, 4):
        _adjust(views, parameters, np.where(number > hue, order[:, number], -1))
    _change(views, np.flatnonzero(parameters.gray), colour.grayscale)
    blurred = np.flatnonzero(parameters.sigma)
    if len(blurred):
        weights = _on(box_weights(parameters.sigma[blurred]), views)
        _change(views, blurred, gaussian_blur, weights)
    _change(views, np.flatnonzero(parameters.solarize), colour.solarize)
    _change(views, np.flatnonzero(parameters.equalize), colour.equalize)


def _adjust(views: torch.Tensor, parameters: Parameters, kinds: np.ndarray) -> None:
    """Change brightness, contrast or saturation of each view, or nothing, in place."""
    for kind, adjust in _ADJUST.items():
        chosen = np.flatnonzero(kinds == kind)
        if len(chosen):
            factors = parameters.factors[chosen, kind].astype(np.float32)
            _change(views, chosen, adjust, _column(factors, views))


def _column(values: np.ndarray, like: torch.Tensor) -> torch.Tensor:
    return _on(values, like).view(-1, 1, 1, 1)


def _change(
    views: torch.Tensor,
    chosen: np.ndarray,
    operation: Callable[..., torch.Tensor],
    *given: torch.Tensor,
) -> None:
    """Apply an operation to some of the views, in place."""
    if len(chosen) == len(views):
        changed = operation(views, *given)
        if changed is not views:
            views.copy_(changed)
    elif len(chosen):
        rows = _on(chosen, views)
        views.index_copy_(0, rows, operation(views.index_select(0, rows), *given))


def normalize(
    views: torch.Tensor, mean: tuple[float, float, float], std: tuple[float, float, float]
) -> torch.Tensor:
    """Normalise views (B, 3, S, S) of whole numbers in [0, 255], in place."""
    shift, scale = _normalisation(mean, std, views.device)
    return views.sub_(shift).mul_(scale)


@functools.lru_cache(maxsize=16)
def _normalisation(
    mean: tuple[float, ...], std: tuple[float, ...], device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what to subtract from bytes and what to multiply by, (3, 1, 1) each."""
    shift = torch.tensor(mean, dtype=torch.float64) * 255
    scale = 1 / (torch.tensor(std, dtype=torch.float64) * 255)
    return shift.float().view(3, 1, 1).to(device), scale.float().view(3, 1, 1).to(device)


def _on(values: np.ndarray, like: torch.Tensor) -> torch.Tensor:
    """Return values on the device of a tensor, without waiting for it."""
    tensor = torch.from_numpy(values)
    if like.device.type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(like.device, non_blocking=True)
