"""Reduce features: equal spread of each, unit length, principal components.

The features of a network differ in spread by orders of magnitude, and those of a large one decide
which images are near each other. Divided by its standard deviation each counts alike.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
import torch

from uic_plugin.seeding import derive_seed

_CHUNK = 16_384
_PCA_SAMPLE = 50_000  # maximum number of rows to compute principal components from
_EQUAL = 5e-3  # distance of unit features within which rounding to 16 bits hides a difference
_LEAST = 1e-6  # share of the largest variance below which a component is noise
_CONSTANT = 1e-2  # of the mean spread: a feature that varies less is left out
_EVENED = 0.3  # power of its standard deviation that divides a component; see docs/discover.md


@dataclass(frozen=True)
class Reduction:
    """Scales features, brings rows to unit length, centers them, rotates them to components.

    Attributes:
        mean: (D,) of the scaled rows of unit length.
        axes: (D, d) orthogonal columns, of length 1 unless evened.
        scale: (D,) factor of each feature: one over its standard deviation, 0 of a constant one.
        spread: (d,) standard deviation of the components, relative to that of the first.
    """

    mean: torch.Tensor
    axes: torch.Tensor
    scale: torch.Tensor
    spread: torch.Tensor

    def evening(self) -> torch.Tensor:
        """Return the factor of each component that evens out their spread in part, (d,)."""
        return self.spread**-_EVENED

    def evened(self) -> Reduction:
        """Return the reduction to components that were multiplied by `evening`."""
        factor = self.evening()
        return dataclasses.replace(self, axes=self.axes * factor, spread=self.spread * factor)

    def __call__(self, features: torch.Tensor) -> torch.Tensor:
        """Return (B, d) float32 of unit length from (B, D) features of any float type."""
        rows = torch.nn.functional.normalize(features.float() * self.scale, dim=1)
        return torch.nn.functional.normalize((rows - self.mean) @ self.axes, dim=1)


def fit_reduction(
    features: np.ndarray, dims: int, *, seed: int = 0, equal_spread: bool = True
) -> Reduction:
    """Fit the scale of each feature and principal components, from a sample if there are many.

    Args:
        features: (N, D) of any float type, optionally memory-mapped.
        dims: maximum number of components.
        seed: of the sample.
        equal_spread: divide each feature by its standard deviation; otherwise all scales are 1.

    Raises:
        ValueError: if features are not finite, or those of all images are equal.
    """
    count = len(features)
    chosen = np.arange(count)
    if count > _PCA_SAMPLE:
        rng = np.random.default_rng(derive_seed(seed, "principal components"))
        chosen = np.sort(rng.choice(count, _PCA_SAMPLE, replace=False))
    rows = torch.from_numpy(np.array(features[chosen], np.float32))
    if not torch.isfinite(rows).all():
        raise ValueError("the features of some images are not finite: compute them anew")
    unit = torch.nn.functional.normalize(rows, dim=1)
    if _are_equal(unit):
        raise ValueError(f"all {count} images have the same features: there is nothing to divide")
    scale = torch.ones(rows.shape[1])
    if equal_spread:
        wanted = _scale_to_equal_spread(rows)
        scaled = torch.nn.functional.normalize(rows * wanted, dim=1)
        if not _are_equal(scaled):  # as where one feature varies and its size is all there is
            scale, unit = wanted, scaled
    mean = unit.mean(0)
    variances, axes = _principal_axes((unit - mean).double())
    spanned = int((variances > _LEAST * variances.max()).sum())
    kept = max(1, min(dims, spanned))
    spread = (variances[:kept] / variances[0]).sqrt()
    return Reduction(mean, axes[:, :kept].float().contiguous(), scale, spread.float())


def _are_equal(unit: torch.Tensor) -> bool:
    return float((unit - unit.mean(0)).norm(dim=1).max()) < _EQUAL


def _scale_to_equal_spread(rows: torch.Tensor) -> torch.Tensor:
    """Return one over the standard deviation of each column, relative to their mean, (D,)."""
    spread = rows.std(0)
    spread = spread / spread.mean().clamp_min(torch.finfo(spread.dtype).tiny)
    return torch.where(spread > _CONSTANT, 1 / spread, 0.0)


def _principal_axes(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return variances, highest first, and orthonormal columns of centered float64 rows."""
    if len(rows) < rows.shape[1]:  # most variances would be zero, and eigh not converge
        _, scales, axes = torch.linalg.svd(rows, full_matrices=False)
        return scales**2, axes.T
    variances, axes = torch.linalg.eigh(rows.T @ rows)
    return variances.flip(0), axes.flip(1)


def reduce_features(features: np.ndarray, reduction: Reduction) -> torch.Tensor:
    """Return (N, d) float16 of unit length, in chunks.

    Raises:
        ValueError: if features are not finite.
    """
    reduced = torch.empty(len(features), reduction.axes.shape[1], dtype=torch.float16)
    for first in range(0, len(features), _CHUNK):
        rows = reduction(torch.from_numpy(np.array(features[first : first + _CHUNK])))
        if not torch.isfinite(rows).all():
            raise ValueError("the features of some images are not finite: compute them anew")
        reduced[first : first + _CHUNK] = rows
    return reduced
