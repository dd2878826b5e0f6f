"""What one augmentation pipeline does, and the parameters that each image draws from it."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np

Range = tuple[float, float]

_TRIES = 10  # of a random crop before it falls back to a central one, as in torchvision
_ORDERS = np.array(list(itertools.permutations(range(4))), np.int64)  # of the four colour changes
BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)
# Where each parameter's uniform numbers stand in an image's row.
_AREA, _RATIO = slice(0, _TRIES), slice(_TRIES, 2 * _TRIES)
NUM_UNIFORMS = 2 * _TRIES + 14
_TOP, _LEFT, _JITTER, _ORDER, *_FACTORS, _GRAY, _BLUR, _SIGMA, _SOLARIZE, _EQUALIZE, _FLIP = range(
    2 * _TRIES, NUM_UNIFORMS
)


@dataclass(frozen=True)
class Pipeline:
    """One augmentation pipeline; operations come in the order of the attributes.

    Attributes:
        size: height and width in pixels of a view.
        mean: (3,) of the normalisation, for pixels in [0, 1].
        std: (3,) of the normalisation.
        count: views of each image.
        scale: least and largest share of the image's area that a crop has.
        ratio: least and largest width / height of a crop.
        interpolation: "bicubic" or "bilinear", antialiased.
        jitter_prob: probability of the four colour changes, in an order that is random as well.
        factors: range of brightness, contrast, saturation and hue, in this order; None for none.
        gray_prob: probability of no colour.
        blur_prob: probability of a Gaussian blur.
        sigma: range of its standard deviation in pixels.
        solarize_prob: probability of inverting pixels from 128 on.
        equalize_prob: probability of equalizing the histogram of each channel.
        flip_prob: probability of a horizontal flip.
    """

    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    count: int = 1
    scale: Range = (0.08, 1.0)
    ratio: Range = (3 / 4, 4 / 3)
    interpolation: str = "bicubic"
    jitter_prob: float = 0.0
    factors: tuple[Range | None, Range | None, Range | None, Range | None] = (None,) * 4
    gray_prob: float = 0.0
    blur_prob: float = 0.0
    sigma: Range = (0.1, 2.0)
    solarize_prob: float = 0.0
    equalize_prob: float = 0.0
    flip_prob: float = 0.0


@dataclass(frozen=True)
class Boxes:
    """Where each view lies in its image.

    Attributes:
        top, left, height, width: (B,) int64, the box in pixels of the image.
        rows, columns: (B,) int64, pixels that the whole box would be resized to.
        first_row, first_column: (B,) int64, the pixel of those with which the view begins.
        flip: (B,) bool, whether the view is mirrored.
    """

    top: np.ndarray
    left: np.ndarray
    height: np.ndarray
    width: np.ndarray
    rows: np.ndarray
    columns: np.ndarray
    first_row: np.ndarray
    first_column: np.ndarray
    flip: np.ndarray

    def __getitem__(self, images: np.ndarray | slice) -> Boxes:
        """Return the boxes of some images."""
        return Boxes(**{name: values[images] for name, values in vars(self).items()})


@dataclass(frozen=True)
class Parameters:
    """What the views of a batch are made with.

    Attributes:
        boxes: where each lies in its image.
        order: (B, 4) int64, colour changes in their order; -1 for an image without them.
        factors: (B, 4) float64 of brightness, contrast, saturation and hue.
        gray, solarize, equalize: (B,) bool.
        sigma: (B,) float64, standard deviation of the blur, 0 for none.
    """

    boxes: Boxes
    order: np.ndarray
    factors: np.ndarray
    gray: np.ndarray
    sigma: np.ndarray
    solarize: np.ndarray
    equalize: np.ndarray


def draw_parameters(pipeline: Pipeline, sizes: np.ndarray, rows: np.ndarray) -> Parameters:
    """Return the parameters of one view of each image.

    Args:
        pipeline: what is drawn.
        sizes: (B, 2) int64, height and width of each image.
        rows: (B, NUM_UNIFORMS) uniform numbers, see `uniforms`.
    """
    factors = np.ones((len(rows), 4))
    factors[:, HUE] = 0.0
    order = _ORDERS[(rows[:, _ORDER] * len(_ORDERS)).astype(np.int64)]
    for number, (span, column) in enumerate(zip(pipeline.factors, _FACTORS, strict=True)):
        if span is None:
            order = np.where(order == number, -1, order)
        else:
            factors[:, number] = span[0] + (span[1] - span[0]) * rows[:, column]
    order[rows[:, _JITTER] >= pipeline.jitter_prob] = -1
    low, high = pipeline.sigma
    sigma = low + (high - low) * rows[:, _SIGMA]
    return Parameters(
        boxes=_crops(pipeline, sizes, rows),
        order=order,
        factors=factors,
        gray=rows[:, _GRAY] < pipeline.gray_prob,
        sigma=np.where(rows[:, _BLUR] < pipeline.blur_prob, sigma, 0.0),
        solarize=rows[:, _SOLARIZE] < pipeline.solarize_prob,
        equalize=rows[:, _EQUALIZE] < pipeline.equalize_prob,
    )


def _crops(pipeline: Pipeline, sizes: np.ndarray, rows: np.ndarray) -> Boxes:
    """Return random resized crops: the first of ten tries that lies within the image, or a central
    one."""
    all_heights, all_widths = sizes[:, :1], sizes[:, 1:]
    (low, high), (narrow, wide) = pipeline.scale, map(math.log, pipeline.ratio)
    area = all_heights * all_widths * (low + (high - low) * rows[:, _AREA])
    ratio = np.exp(narrow + (wide - narrow) * rows[:, _RATIO])
    widths = np.rint(np.sqrt(area * ratio)).astype(np.int64)
    heights = np.rint(np.sqrt(area / ratio)).astype(np.int64)
    fits = (widths > 0) & (widths <= all_widths) & (heights > 0) & (heights <= all_heights)
    chosen = fits.argmax(1)
    images = np.arange(len(rows))
    found = fits[images, chosen]
    central = _central(pipeline.ratio, sizes)
    height = np.where(found, heights[images, chosen], central[0])
    width = np.where(found, widths[images, chosen], central[1])
    free = [sizes[:, 0] - height, sizes[:, 1] - width]
    place = [(rows[:, _TOP] * (free[0] + 1)), (rows[:, _LEFT] * (free[1] + 1))]
    top, left = (
        np.where(found, drawn.astype(np.int64), room // 2)
        for drawn, room in zip(place, free, strict=True)
    )
    size, none = np.full(len(rows), pipeline.size), np.zeros(len(rows), np.int64)
    flip = rows[:, _FLIP] < pipeline.flip_prob
    return Boxes(top, left, height, width, size, size, none, none, flip)


def _central(ratio: Range, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return height and width of the largest crop whose aspect ratio is allowed."""
    heights, widths = sizes[:, 0], sizes[:, 1]
    shape = widths / heights
    tall = np.where(shape < ratio[0], np.rint(widths / ratio[0]).astype(np.int64), heights)
    broad = np.where(shape > ratio[1], np.rint(heights * ratio[1]).astype(np.int64), widths)
    return tall, broad


def center_boxes(sizes: np.ndarray, side: int, size: int) -> Boxes:
    """Return the boxes of centered views: shorter side resized, the middle cut out.

    Args:
        sizes: (B, 2) int64, height and width of each image.
        side: pixels of the shorter side.
        size: pixels of the view, at most `side`.
    """
    short = sizes.min(1)
    rows, columns = (
        np.where(length == short, side, (side * length / short).astype(np.int64))
        for length in sizes.T
    )
    first = [np.rint((length - size) / 2).astype(np.int64) for length in (rows, columns)]
    none = np.zeros(len(sizes), np.int64)
    height, width = sizes.T
    flip = none.astype(bool)
    return Boxes(none, none, height, width, rows, columns, first[0], first[1], flip)
