"""Crop and resize, each image with a box of its own, to what Pillow makes of it.

Pillow resizes the rows of a crop, rounds to bytes, then resizes its columns, and rounds again; from
version 13 on the columns come first where the height shrinks by more than twice as many pixels as
the width. A filter that shrinks is widened, so that nothing is left out (antialiasing). Both passes
are linear, so here they are two matrix products for the whole batch, with the filter's weights of
each image in a matrix. Weights are rounded to multiples of 2**-15: every product and every sum of a
pass is then a whole multiple that float32 holds exactly, so that the pixels do not depend on the
order of the sums, hence not on threads, device or the other images of the batch.

On a CPU a matrix product of photographs costs more than torch's own resampling of bytes, image by
image, which is that of Pillow as well. The choice depends on the image's own size alone.

Source: Pillow's `Resample.c`; the bicubic filter is that of Keys (1981) with a = -0.5.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from uic_plugin.augmentation.pipeline import Boxes
from uic_plugin.augmentation.pixels import Pixels

# adding and subtracting these leaves whole multiples of 2**-15 and 2**-20
_ROUNDING, _SUMMED = 1.5 * 2.0**8, 1.5 * 2.0**3
_DENSE_SIDE = 64  # pixels, up to which matrices are faster on a CPU
_LIMIT = 1 << 26  # bytes of images that are resampled at once
_TABLE_BYTES = 1 << 23
_SUPPORT = {"bicubic": 2.0, "bilinear": 1.0}  # pixels to either side
INTERPOLATIONS = tuple(_SUPPORT)


def resample(pixels: Pixels, boxes: Boxes, size: int, interpolation: str) -> torch.Tensor:
    """Return views of a batch, (B, 3, size, size) float32 with whole numbers in [0, 255].

    Args:
        pixels: the images.
        boxes: where each view lies.
        size: pixels of a view's side.
        interpolation: "bicubic" or "bilinear".
    """
    on_cpu = pixels.data.device.type == "cpu"
    if pixels.is_even and (not on_cpu or pixels.sizes[0].max() <= _DENSE_SIDE):
        parts = list(pixels.groups(_LIMIT))
        views = [_by_matrices(part, boxes[rows], size, interpolation) for rows, part in parts]
        return views[0] if len(views) == 1 else torch.cat(views)
    out = torch.empty(len(pixels), 3, size, size, device=pixels.data.device)
    if not on_cpu:
        for rows, part in pixels.groups(_LIMIT):
            where = torch.from_numpy(rows).to(out.device, non_blocking=True)
            out[where] = _by_matrices(part, boxes[rows], size, interpolation)
        return out
    for row in range(len(pixels)):
        image = pixels.image(row)
        if max(image.shape[:2]) <= _DENSE_SIDE:
            out[row] = _by_matrices(image[None], boxes[row : row + 1], size, interpolation)[0]
        else:
            out[row] = _one_by_one(image, boxes[row : row + 1], size, interpolation)
    return out


def planes(images: torch.Tensor) -> torch.Tensor:
    """Return images (B, H, W, 3) of bytes as float32 planes (B, 3, H, W)."""
    return images.permute(0, 3, 1, 2).contiguous().float()


def _columns_first(boxes: Boxes) -> np.ndarray:
    """Return for each box (B,) whether Pillow resizes its columns before its rows."""
    shrinks = boxes.height - boxes.rows
    return (shrinks > 0) & (shrinks > 2 * (boxes.width - boxes.columns))


def _one_by_one(image: torch.Tensor, box: Boxes, size: int, interpolation: str) -> torch.Tensor:
    """Return a view of one image by torch's resampling of bytes, (3, size, size) uint8."""
    top, left, height, width, rows, columns, first_row, first_column, flip = (
        int(values[0]) for values in vars(box).values()
    )
    view = image[top : top + height, left : left + width].permute(2, 0, 1)[None]
    between = (rows, width) if _columns_first(box)[0] else (height, columns)
    for shape in (between, (rows, columns)):
        if view.shape[2:] != shape:
            view = view.contiguous(memory_format=torch.channels_last)
            view = F.interpolate(view, shape, mode=interpolation, antialias=True)
    view = view[0, :, first_row : first_row + size, first_column : first_column + size]
    return view.flip(2) if flip else view


def _by_matrices(images: torch.Tensor, boxes: Boxes, size: int, interpolation: str) -> torch.Tensor:
    """Return views (B, 3, size, size) of images (B, H, W, 3) uint8 by two matrix products."""
    late = _columns_first(boxes)
    if not late.any():
        return _products(images, boxes, size, interpolation, columns_first=False)
    if late.all():
        return _products(images, boxes, size, interpolation, columns_first=True)
    out = torch.empty(len(images), 3, size, size, device=images.device)
    for columns_first in (False, True):
        rows = np.flatnonzero(late == columns_first)
        where = torch.from_numpy(rows).to(images.device, non_blocking=True)
        part = images.index_select(0, where)
        out[where] = _products(part, boxes[rows], size, interpolation, columns_first=columns_first)
    return out


def _products(
    images: torch.Tensor, boxes: Boxes, size: int, interpolation: str, *, columns_first: bool
) -> torch.Tensor:
    """Return the views of images whose axes are resized in one order, see `_by_matrices`."""
    count, height, width, _ = images.shape
    across = (boxes.left, boxes.width, boxes.columns, boxes.first_column, boxes.flip)
    down = (boxes.top, boxes.height, boxes.rows, boxes.first_row, np.zeros(count, bool))
    given = (size, interpolation, images.device)
    to_columns = _matrices(np.stack(across), width, *given, transposed=True)
    to_rows = _matrices(np.stack(down), height, *given)
    views = planes(images)
    with torch.autocast(images.device.type, enabled=False), exact_products():
        if columns_first:
            views = to_bytes(torch.matmul(to_rows[:, None], views))
        views = to_bytes(torch.bmm(views.view(count, -1, width), to_columns))
        views = views.view(count, 3, -1, size)
        if not columns_first:
            views = to_bytes(torch.matmul(to_rows[:, None], views))
    return views


def _matrices(
    lines: np.ndarray,
    length: int,
    size: int,
    interpolation: str,
    device: torch.device,
    *,
    transposed: bool = False,
) -> torch.Tensor:
    """Return the matrices (R, size, length) of lines, see `_Taps.of`, or their transposes."""
    given = (length, size, interpolation, device)
    whole = (lines[2] == size).all() and not lines[3].any()
    if whole and length**3 * size * 4 <= _TABLE_BYTES:
        table = _table(*given, transposed)
        start, span, _, _, flip = lines.astype(np.int64)
        rows = (flip * length + start) * length + span - 1
        return table.index_select(0, torch.from_numpy(rows).to(device, non_blocking=True))
    taps = _Taps.of(lines, *given)
    return taps.transposed(length) if transposed else taps.matrices(length)


@functools.lru_cache(maxsize=8)
def _table(
    length: int, size: int, interpolation: str, device: torch.device, transposed: bool
) -> torch.Tensor:
    """Return the matrices of all boxes of a line, by mirroring, first pixel and length.

    Small images have few boxes; to look one up takes a fifth of the time to compute it.
    """
    flip, start, span = np.indices((2, length, length)).reshape(3, -1)
    span = np.minimum(span + 1, length - start)  # longer ones do not exist
    total = np.full_like(start, size)
    lines = np.stack([start, span, total, np.zeros_like(start), flip])
    taps = _Taps.of(lines, length, size, interpolation, device)
    return taps.transposed(length) if transposed else taps.matrices(length)


@dataclass(frozen=True)
class _Taps:
    """The weights by which the pixels of lines make those of views.

    Attributes:
        weights: (R, size, T) float32.
        index: (R, size, T) int64, the pixels of the line that they belong to.
    """

    weights: torch.Tensor
    index: torch.Tensor

    @classmethod
    def of(
        cls, lines: np.ndarray, length: int, size: int, interpolation: str, device: torch.device
    ) -> _Taps:
        """Return the weights of a filter.

        Args:
            lines: (5, R), a box's first pixel on the line, its length, the length that it is
                resized to, the pixel of that with which the view begins, and whether the view is
                mirrored.
            length: pixels of a line.
            size: pixels of a line of the view.
            interpolation: the filter.
            device: where the weights are needed.
        """
        support = _SUPPORT[interpolation]
        widest = float(np.maximum(lines[1] / lines[2], 1.0).max())
        count = min(2 * math.ceil(support * widest) + 1, length)
        given = torch.from_numpy(lines.astype(np.float32)).to(device, non_blocking=True)
        start, span, total, first, flip = given[..., None].unbind()
        pixel = torch.arange(size, dtype=torch.float32, device=device)
        pixel = pixel + flip * ((size - 1) - 2 * pixel)
        scale = span / total
        wide = scale.clamp(min=1.0)
        center = (first + 0.5 + pixel) * scale  # within the box
        low = (center + (0.5 - support * wide)).floor_()
        low = torch.minimum(torch.maximum(low, -start), (length - count) - start)
        tap = torch.arange(count, device=device)
        place = low[..., None] + tap
        weights = _FILTERS[interpolation]((place + (0.5 - center)[..., None]).div_(wide[..., None]))
        # only pixels of the box count
        weights.mul_(torch.minimum(place + 1, span[..., None] - place).clamp_(0, 1))
        weights.add_(_SUMMED).sub_(_SUMMED)  # so that their sum has no order either
        weights.div_(weights.sum(-1, keepdim=True))
        weights.add_(_ROUNDING).sub_(_ROUNDING)
        return cls(weights, (low + start).long()[..., None] + tap)

    def __getitem__(self, lines: slice) -> _Taps:
        return _Taps(self.weights[lines], self.index[lines])

    def matrices(self, length: int) -> torch.Tensor:
        """Return the weights as matrices (R, size, length)."""
        count, size, _ = self.index.shape
        return self.weights.new_zeros(count, size, length).scatter_(2, self.index, self.weights)

    def transposed(self, length: int) -> torch.Tensor:
        """Return the weights as matrices (R, length, size)."""
        count, size, _ = self.index.shape
        matrices = self.weights.new_zeros(count, length, size)
        return matrices.scatter_(1, self.index.mT, self.weights.mT)


@contextmanager
def exact_products() -> Iterator[None]:
    """Keep factors from being rounded to TF32 or bfloat16, whatever the training does."""
    before = torch.get_float32_matmul_precision()
    if before == "highest":
        yield
        return
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def _bicubic(distance: torch.Tensor) -> torch.Tensor:
    """Return Keys' filter with a = -0.5, from what is left of the distance to 1 and to 2."""
    far = distance.abs_().neg_().add_(2.0).clamp_(min=0.0)
    less = far - 1.0
    near = less.clamp(min=0.0)
    inner = near.square().mul_(near.mul_(-2.0).add_(1.0))
    return far.square_().mul_(less).mul_(0.5).add_(inner)


def _bilinear(distance: torch.Tensor) -> torch.Tensor:
    return distance.abs_().neg_().add_(1.0).clamp_(min=0.0)


_FILTERS = {"bicubic": _bicubic, "bilinear": _bilinear}


def to_bytes(values: torch.Tensor) -> torch.Tensor:
    """Round to whole numbers in [0, 255] as Pillow does, in place."""
    return values.add_(0.5).floor_().clamp_(0, 255)
