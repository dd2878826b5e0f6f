"""Nearest neighbours and k-means of reduced features, by faiss.

Everything runs in chunks: the memory holds the features' reduced copy, the index of the search
(twice that copy where it is exact, as much where it is not) and the table of neighbours.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from uic_plugin.pseudo_labels.kmeans import faiss_module
from uic_plugin.seeding import derive_seed

EXACT_UP_TO = 50_000  # images; above, an inverted file of about sqrt(N) cells
_CELLS_SEARCHED = 16
_CHUNK = 16_384


def nearest_neighbours(
    reduced: torch.Tensor,
    count: int,
    *,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> torch.Tensor:
    """Return the nearest other images of each image by cosine, (N, count) int32.

    The search is exact up to `EXACT_UP_TO` images; above, an inverted file searches the 16 nearest
    cells. If these have too few images, an image's first neighbours are repeated.

    Args:
        reduced: (N, d) of unit length, N at least 2.
        count: neighbours per image, fewer if there are fewer images.
        seed: of the cells.
        progress: called with the number of images done, and of all.
    """
    faiss = faiss_module()
    num_images, dim = reduced.shape
    count = min(count, num_images - 1)
    if num_images <= EXACT_UP_TO:
        index = faiss.IndexFlatIP(dim)
    else:
        cells = int(2 * num_images**0.5)
        index = faiss.index_factory(dim, f"IVF{cells},SQfp16", faiss.METRIC_INNER_PRODUCT)
        index.cp.seed = derive_seed(seed, "cells") % (1 << 31)
        index.cp.niter = 8
        index.nprobe = _CELLS_SEARCHED
        sample = torch.linspace(0, num_images - 1, min(num_images, 50 * cells)).long()
        index.train(reduced[sample].float().numpy())
    for first in range(0, num_images, _CHUNK):
        index.add(reduced[first : first + _CHUNK].float().numpy())
    table = torch.empty(num_images, count, dtype=torch.int32)
    for first in range(0, num_images, _CHUNK):
        rows = reduced[first : first + _CHUNK].float().numpy()
        found = index.search(rows, count + 1)[1]
        table[first : first + _CHUNK] = torch.from_numpy(_others(found, first, count))
        progress(min(first + _CHUNK, num_images), num_images)
    return table


def _others(found: np.ndarray, first: int, count: int) -> np.ndarray:
    """Return the found neighbours without the image itself, (B, count)."""
    own = np.arange(first, first + len(found))[:, None]
    wrong = (found == own) | (found < 0)
    order = np.argsort(wrong, axis=1, kind="stable")
    kept = np.take_along_axis(found, order, 1)[:, :count]
    usable = np.clip((~wrong).sum(1, keepdims=True), 1, count)
    # repeat the first ones if there are too few
    kept = np.take_along_axis(kept, np.arange(count)[None] % usable, 1)
    return np.where(kept < 0, own, kept).astype(np.int32)


def spherical_kmeans(
    reduced: torch.Tensor, num_classes: int, *, seed: int, iterations: int = 20
) -> torch.Tensor:
    """Return the centroids of k-means on unit vectors, (K, d) float32 of unit length.

    Of many vectors it takes a random sample: 256 per class, but 20,000 at least.

    Args:
        reduced: (N, d) of unit length.
        num_classes: K, at most N.
        seed: of the draw and the first centroids.
        iterations: of k-means.
    """
    faiss = faiss_module()
    # k-means++: random images may all be of the largest class if classes differ in size
    spread = getattr(faiss, "ClusteringInitMethod_KMEANS_PLUS_PLUS", None)  # faiss 1.13
    start = {} if spread is None else {"init_method": spread}
    sample = reduced
    most = max(256 * num_classes, 20_000)
    if len(reduced) > most:
        generator = torch.Generator().manual_seed(derive_seed(seed, "k-means sample"))
        sample = reduced[torch.randint(len(reduced), (most,), generator=generator)]
    kmeans = faiss.Kmeans(
        reduced.shape[1],
        num_classes,
        niter=iterations,
        seed=derive_seed(seed, "k-means") % (1 << 31),
        spherical=True,
        max_points_per_centroid=len(sample),
        min_points_per_centroid=1,
        **start,
    )
    kmeans.train(sample.float().numpy())
    return torch.nn.functional.normalize(torch.from_numpy(kmeans.centroids.copy()), dim=1)
