"""Choose the images of the page, and the order of their thumbnails."""

from __future__ import annotations

import numpy as np

COVERS = 6  # images on the card of a class
_FEWEST = 24  # minimum number of images per class in a sample, unless the class is smaller


def certainty_of(confidence: np.ndarray) -> np.ndarray:
    """Return the confidence with 0 where a label file has none, (N,) float64."""
    return np.nan_to_num(confidence.astype(np.float64), nan=0.0)


def sample_images(
    labels: np.ndarray, confidence: np.ndarray, limit: int, *, seed: int = 0
) -> np.ndarray:
    """Choose about `limit` images: of each class the most and least confident and random ones.

    Every class gets the same share of `limit`, but at least 24 images; smaller classes are kept
    completely. A third of a share are the images of highest confidence, a third those of lowest
    confidence, and the others are drawn at random.

    Args:
        labels: (N,) classes.
        confidence: (N,) scores in [0, 1] or NaN.
        limit: images to show.
        seed: of the draw.

    Returns:
        (M,) int64 indices, ascending; all of them if N is at most `limit`.
    """
    if len(labels) <= limit:
        return np.arange(len(labels))
    sizes: np.ndarray = np.bincount(labels)
    share = max(_FEWEST, limit // int(np.count_nonzero(sizes)))
    rank = rank_in_class(labels, -certainty_of(confidence))
    drawn = rank_in_class(labels, np.random.default_rng(seed).random(len(labels)))
    third = share // 3
    size: np.ndarray = sizes[labels]
    kept = (size <= share) | (rank < third) | (rank >= size - third) | (drawn < share - 2 * third)
    return np.flatnonzero(kept)


def thumbnail_order(labels: np.ndarray, confidence: np.ndarray) -> np.ndarray:
    """Order images so that those shown together are in the same files.

    First come the six most confident images of every class, which the overview shows, class by
    class; then all others, class by class, by decreasing confidence.

    Args:
        labels: (N,) classes.
        confidence: (N,) scores in [0, 1] or NaN.

    Returns:
        (N,) int64 indices.
    """
    rank = rank_in_class(labels, -certainty_of(confidence))
    return np.lexsort((rank, labels, rank >= COVERS))


def rank_in_class(labels: np.ndarray, key: np.ndarray) -> np.ndarray:
    """Return each image's rank in its class by ascending `key`, ties by index, (N,) int64."""
    order = np.lexsort((key, labels))
    sizes = np.bincount(labels)
    first = np.concatenate(([0], np.cumsum(sizes)[:-1]))
    rank = np.empty(len(labels), np.int64)
    rank[order] = np.arange(len(labels)) - first[labels[order]]
    return rank
