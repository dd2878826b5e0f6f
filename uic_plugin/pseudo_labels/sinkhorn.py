"""Labels that fill all classes equally and cost least: optimal transport by Sinkhorn-Knopp.

    labels = sinkhorn_labels(logits, power=25).labels       # logits (N, K)

Nothing but the scores themselves is as large as N x K: the kernel is made block by block, and kept
only where it is small. Source: SelfLabel (Asano et al., 2020), section 3.1, Eq. 6 to 8.

Let P be the softmax of the scores, M = P ** power, and a label distribution Q = diag(c) M diag(r)
whose rows sum to 1 / N and whose columns sum to 1 / K. The two vectors of factors are found
alternately. Powers of a softmax span hundreds of orders of magnitude, so M is never formed as such:
whatever factors a row or a column would take out anyway are subtracted from its logarithm first.
"""

from __future__ import annotations

import math
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch

from uic_plugin.ranks import Reduce, alone

_BLOCK_BYTES = 1 << 26  # of a block of the kernel
_KEPT_BYTES = 4 << 30  # of a kernel or of scores that are kept in memory
_FACTOR_LIMIT = 50 * math.log(10)  # factors beyond 1e50 go into the logarithms
_CHECK_EVERY = 10  # iterations, as in the authors' code


@dataclass(frozen=True)
class Transport:
    """Keeps a solution.

    Attributes:
        labels: (n,) int64, the class that gets most of an image.
        iterations: number of iterations that it took.
        class_mass: (K,) float64, sums of Q's columns; 1 / K where it has converged.
    """

    labels: torch.Tensor
    iterations: int
    class_mass: torch.Tensor


def sinkhorn_labels(
    scores: torch.Tensor,
    *,
    power: float = 25.0,
    tolerance: float = 0.1,
    max_iterations: int = 2000,
    kept_bytes: int | None = None,
    block_rows: int | None = None,
    device: torch.device | str | None = None,
    total: Reduce = alone,
    largest: Reduce = alone,
) -> Transport:
    """Find labels of equal class sizes for images with given class scores.

    The result does not depend on `kept_bytes`: a kernel that is kept and one that is made anew in
    every iteration are the same numbers, added in the same order.

    Args:
        scores: (n, K) logits or log-probabilities of this rank's images, in memory or mapped.
        power: lambda, above 0: the larger, the closer to the cheapest labels.
        tolerance: summed relative change of the images' factors at which the iteration ends.
        max_iterations: ends it with a warning.
        kept_bytes: the largest kernel, in float64, that is kept in memory; by default 4 GiB, or
            less on a GPU that has less.
        block_rows: images at once; by default as many as fit a block.
        device: where to compute; by default where the scores are.
        total: sum of a tensor over ranks; each holds its own rows.
        largest: maximum of a tensor over ranks.

    Raises:
        ValueError: for scores of another shape or that are not finite, numbers out of range, or a
            power at which the numbers leave float64.
    """
    if scores.ndim != 2 or 0 in scores.shape:
        raise ValueError(f"scores must be (images, classes), got {tuple(scores.shape)}")
    for name, value in (("power", power), ("tolerance", tolerance)):
        if not 0 < value < float("inf"):
            raise ValueError(f"{name} must be above 0, got {value}")
    device = torch.device(device or scores.device)
    if device.type == "mps":  # has no float64
        device = torch.device("cpu")
    limit = _kept_bytes(device) if kept_bytes is None else kept_bytes
    problem = _Problem(scores, power, limit, block_rows, device)
    return _solve(problem, tolerance, max_iterations, total, largest)


def _solve(
    problem: _Problem, tolerance: float, max_iterations: int, total: Reduce, largest: Reduce
) -> Transport:
    """Find the factors alternately, until those of the images no longer change."""
    num_rows = torch.tensor([len(problem.row)], dtype=torch.float64, device=problem.device)
    num_images = float(total(num_rows))
    num_classes = len(problem.column)
    problem.level(largest)

    c = torch.full_like(problem.row, 1 / num_images)
    mass = total(problem.column_sums(c))
    error, iteration = math.inf, 0
    while not error <= tolerance and iteration < max_iterations:
        r = 1 / (num_classes * mass)
        c_new, mass = problem.iterate(r, num_images)
        mass = total(mass)
        # no more than one exchange between ranks in most iterations; factors grow by at most the
        # number of images in each, so they do not overflow between two looks
        is_look = iteration % _CHECK_EVERY == 0
        if is_look:
            error = float(total((c / c_new - 1).abs().sum()[None]))
            if math.isnan(error):
                raise ValueError(
                    f"Sinkhorn-Knopp has no solution in float64 at power {problem.power} (its "
                    f"error is NaN after {iteration + 1} iterations): choose a smaller power"
                )
        c = c_new
        iteration += 1
        if is_look and float(largest(_spread(c, r))) > _FACTOR_LIMIT:
            problem.absorb(c, r)
            c, mass = torch.ones_like(c), mass * r
            r = torch.ones_like(r)
    if error > tolerance:
        warnings.warn(
            f"Sinkhorn-Knopp stopped after {iteration} iterations with error {error:.3g}, "
            f"above {tolerance}: the classes are not quite of equal size",
            stacklevel=3,
        )
    return Transport(problem.labels(r), iteration, mass * r)


def _spread(c: torch.Tensor, r: torch.Tensor) -> torch.Tensor:
    """Return the largest logarithm of a factor, either way."""
    return torch.stack([c.log().abs().max(), r.log().abs().max()]).max()


class _Problem:
    """Makes the kernel of one rank's rows, by blocks: log M = power * scores + row + column."""

    def __init__(
        self,
        scores: torch.Tensor,
        power: float,
        kept_bytes: int,
        block_rows: int | None,
        device: torch.device,
    ) -> None:
        num_rows, num_classes = scores.shape
        self.scores, self.power, self.device = scores, power, device
        step = block_rows or max(1, _BLOCK_BYTES // (8 * num_classes))
        self.blocks = [slice(i, min(i + step, num_rows)) for i in range(0, num_rows, step)]
        self.row = torch.zeros(num_rows, dtype=torch.float64, device=self.device)
        self.column = torch.zeros(num_classes, dtype=torch.float64, device=self.device)
        self.is_kept = 8 * num_rows * num_classes <= kept_bytes
        self.kernel: list[torch.Tensor] = []

    def _logarithms(self) -> Iterator[tuple[slice, torch.Tensor]]:
        for rows in self.blocks:
            # a product of its own: `to` returns the caller's tensor where nothing has to change
            block = self.scores[rows].to(self.device, torch.float64) * self.power
            yield rows, block.add_(self.row[rows, None]).add_(self.column)

    def _kernels(self) -> Iterator[tuple[slice, torch.Tensor]]:
        if self.kernel:
            yield from zip(self.blocks, self.kernel, strict=True)
            return
        kept = []
        for rows, block in self._logarithms():
            block.exp_()
            if self.is_kept:
                kept.append(block)
            yield rows, block
        self.kernel = kept

    def level(self, largest: Reduce) -> None:
        """Take factors out, so that every row and every column has a 1 as its largest entry."""
        for rows, block in self._logarithms():
            if not torch.isfinite(block).all():
                raise ValueError("scores of some images are not finite: the network has diverged")
            self.row[rows] = -block.amax(1)
        highest = torch.full_like(self.column, -math.inf)
        for _, block in self._logarithms():
            highest = torch.maximum(highest, block.amax(0))
        self.column = -largest(highest)

    def column_sums(self, c: torch.Tensor) -> torch.Tensor:
        """Return the sums (K,) of the rows' kernel, weighted."""
        mass = torch.zeros_like(self.column)
        for rows, kernel in self._kernels():
            mass += c[rows] @ kernel
        return mass

    def iterate(self, r: torch.Tensor, num_images: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the rows' factors for those of the columns, and the columns' sums for these."""
        c = torch.empty_like(self.row)
        mass = torch.zeros_like(self.column)
        for rows, kernel in self._kernels():
            c[rows] = 1 / (num_images * (kernel @ r))
            mass += c[rows] @ kernel
        return c, mass

    def absorb(self, c: torch.Tensor, r: torch.Tensor) -> None:
        """Put factors into the logarithms."""
        self.row += c.log()
        self.column += r.log()
        self.kernel = []

    def labels(self, r: torch.Tensor) -> torch.Tensor:
        """Return the labels (n,) that the columns' factors give."""
        labels = torch.empty(len(self.row), dtype=torch.int64, device=self.device)
        for rows, block in self._logarithms():
            labels[rows] = (block + r.log()).argmax(1)
        return labels


def _kept_bytes(device: torch.device) -> int:
    """Return the largest kernel that is kept on a device: 4 GiB, or a quarter of a free GPU."""
    if device.type == "cuda":
        return min(_KEPT_BYTES, torch.cuda.mem_get_info(device)[0] // 4)
    return _KEPT_BYTES


@contextmanager
def open_scores(
    num_images: int,
    width: int,
    *,
    kept_bytes: int = _KEPT_BYTES,
    device: torch.device | None = None,
    device_bytes: float = 0,
) -> Iterator[torch.Tensor]:
    """Yield an uninitialised (num_images, width) float32 tensor, where there is room for it.

    On the device, in memory or in a temporary file, the first that it fits.

    Args:
        num_images, width: its shape.
        kept_bytes: the largest that is kept in memory.
        device: the device of the training, None for no other than the CPU.
        device_bytes: the largest that is kept there.

    Raises:
        OSError: if the disk has no room for the file.
    """
    size = 4 * num_images * width
    if device is not None and device.type != "cpu" and size <= min(device_bytes, _free(device)):
        yield torch.empty(num_images, width, device=device)
        return
    if size <= kept_bytes:
        yield torch.empty(num_images, width)
        return
    folder = tempfile.gettempdir()
    if shutil.disk_usage(folder).free < size:
        raise OSError(
            f"scores of {num_images} images and {width} classes take {size / 1e9:.1f} GB, more "
            f"than is free in {folder}: set TMPDIR to a larger disk"
        )
    with tempfile.NamedTemporaryFile(prefix="uic-scores-") as file:
        yield torch.from_numpy(np.memmap(file, np.float32, "w+", shape=(num_images, width)))


def _free(device: torch.device) -> float:
    """Return half the bytes that are free on a device: the other half is for the network's pass."""
    return torch.cuda.mem_get_info(device)[0] / 2 if device.type == "cuda" else math.inf
