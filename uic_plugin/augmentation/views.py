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
    _jitter(views, parameters)
    _change(views, np.flatnonzero(parameters.gray), colour.grayscale)
    blurred = np.flatnonzero(parameters.sigma)
    if len(blurred):
        weights = _on(box_weights(parameters.sigma[blurred]), views)
        _change(views, blurred, gaussian_blur, weights)
    _change(views, np.flatnonzero(parameters.solarize), colour.solarize)
    _change(views, np.flatnonzero(parameters.equalize), colour.equalize)


def _jitter(views: torch.Tensor, parameters: Parameters) -> None:
    """Change colours, those of each image in an order of its own, in place.

    Hue is the longest, so it is done at once. With the images sorted by its place in their orders,
    those that have something to do before it are the last of them, those with something to do
    after it the first.
    """
    hue = np.where((parameters.order == HUE).any(1), (parameters.order == HUE).argmax(1), 4)
    jittered = np.flatnonzero((parameters.order >= 0).any(1))
    if not len(jittered):
        return
    jittered = jittered[np.argsort(hue[jittered], kind="stable")]
    hue, order = hue[jittered], parameters.order[jittered]
    factors = parameters.factors[jittered]
    is_whole = len(views) == len(jittered) == 1
    rows = _on(jittered, views)
    images = views if is_whole else views.index_select(0, rows)
    for number in range(4):
        part = slice(int(np.searchsorted(hue, number, "right")), None)
        _blend(images[part], order[part, number], factors[part])
    with_hue = slice(0, int(np.searchsorted(hue, 4)))
    if with_hue.stop:
        shifts = np.trunc(factors[with_hue, HUE] * 255).astype(np.int64).astype(np.uint8)
        images[with_hue] = colour.turn_hue(images[with_hue], _column(shifts, views))
    for number in range(1, 4):
        part = slice(0, int(np.searchsorted(hue, number)))
        _blend(images[part], order[part, number], factors[part])
    if not is_whole:
        views.index_copy_(0, rows, images)


def _blend(images: torch.Tensor, kinds: np.ndarray, factors: np.ndarray) -> None:
    """Change brightness, contrast or saturation of each image, or nothing for -1, in place."""
    if (kinds < 0).all():
        return
    given = np.ones((3, len(kinds)), np.float32)
    given[0] = np.where(kinds < 0, 1.0, np.take_along_axis(factors, kinds[:, None], 1)[:, 0])
    given[1], given[2] = kinds == CONTRAST, kinds == SATURATION
    colour.blend(images, *_on(given, images).view(3, -1, 1, 1, 1).unbind())


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
