"""Random numbers that are a function of (seed, epoch, position, view), without a state.

Every image of a batch has a row of uniform numbers of its own. The row is that of SplitMix64,
started at a hash of the image's position in the epoch's order, so it is the same whatever batch,
worker or rank the image is in, and after a resume.

Source: Steele, Lea and Flood, "Fast splittable pseudorandom number generators" (2014), with the
mixing constants of Stafford's variant 13.
"""

from __future__ import annotations

import functools

import numpy as np

from uic_plugin.seeding import derive_seed

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)


def uniforms(
    seed: int, epochs: np.ndarray, positions: np.ndarray, view: int, count: int
) -> np.ndarray:
    """Return uniform numbers in [0, 1), a row for each image.

    Args:
        seed: of the run.
        epochs: (B,) epoch in which each image was drawn.
        positions: (B,) its position in the order of that epoch.
        view: number of the view.
        count: D, numbers of a row. Fewer of them are the first of more.

    Returns:
        (B, D) float64.
    """
    keys = np.empty(len(epochs), np.uint64)
    for epoch in np.unique(epochs):  # one, but where a batch has images of two epochs
        keys[epochs == epoch] = _key(seed, int(epoch), view)
    starts = _mix(keys + _mix(positions.astype(np.uint64) * _GOLDEN + _GOLDEN))
    words = _mix(starts[:, None] + _steps(count))
    return (words >> np.uint64(11)).astype(np.float64) * 2.0**-53


@functools.lru_cache(maxsize=64)
def _key(seed: int, epoch: int, view: int) -> np.uint64:
    return np.uint64(derive_seed(seed, "batch view", epoch, view))


@functools.lru_cache(maxsize=4)
def _steps(count: int) -> np.ndarray:
    return np.arange(1, count + 1, dtype=np.uint64) * _GOLDEN


def _mix(words: np.ndarray) -> np.ndarray:
    """Return hashed words; integer arrays wrap around in numpy, as wanted."""
    words = (words ^ (words >> np.uint64(30))) * _FIRST
    words = (words ^ (words >> np.uint64(27))) * _SECOND
    return words ^ (words >> np.uint64(31))
