"""Labels by clustering features: PCA with whitening, unit length, k-means.

    labels = cluster_features(features, 10_000, seed=0)     # (N,), until the next clustering

faiss does the work, on one GPU of the caller's choice where it is built for GPUs.
Source: DeepCluster (Caron et al., 2018), section 3.3.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from uic_plugin.seeding import derive_seed

_RANK = 1e-6  # eigenvalues below this share of the largest are noise: whitening would blow them up
_BLOCK = 1 << 18  # images handled at once beside a sample: bounds the memory beside their features

Transform = Callable[[np.ndarray], np.ndarray]


def cluster_features(
    features: np.ndarray,
    num_clusters: int,
    *,
    pca_dim: int | None = 256,
    iterations: int = 20,
    seed: int = 0,
    sample: int | None = None,
    gpu: int | None = None,
) -> np.ndarray:
    """Cluster images by their features.

    Args:
        features: (N, D) float32.
        num_clusters: K, from 1 to N.
        pca_dim: dimensions that are kept, whitened and brought to unit length; no more than the
            features have. None clusters the features as they are.
        iterations: number of iterations of k-means.
        seed: seed of its first centroids, and of the sample.
        sample: the most images that components and centroids are learned from, at least K; of
            more images so many are drawn, and all of them are labelled. None: all, as in the paper.
        gpu: number of the GPU that clusters, if faiss is built for GPUs; None: the CPU.

    Returns:
        (N,) int64 clusters in [0, K); some may be empty.

    Raises:
        ImportError: without faiss.
        ValueError: for fewer images than clusters, or features that are not finite or all alike.
    """
    faiss = faiss_module()
    features = np.ascontiguousarray(features, dtype=np.float32)
    if not 1 <= num_clusters <= len(features):
        raise ValueError(
            f"{len(features)} images cannot be put into {num_clusters} clusters: choose at most "
            f"{len(features)}"
        )
    for block in _blocks(features):
        if not np.isfinite(block).all():
            raise ValueError("features of some images are not finite: the network has diverged")
    count = len(features) if sample is None else max(sample, num_clusters)
    drawn = features
    if count < len(features):
        rng = np.random.default_rng(derive_seed(seed, "k-means sample"))
        drawn = features[np.sort(rng.choice(len(features), count, replace=False))]
    transform = _as_they_are if pca_dim is None else _whitening(drawn, pca_dim)
    points = transform(drawn)
    kmeans = _trained_kmeans(faiss, points, num_clusters, iterations, seed, gpu)
    if drawn is features:
        return _nearest(kmeans, points)
    return np.concatenate([_nearest(kmeans, transform(block)) for block in _blocks(features)])


def _trained_kmeans(
    faiss: Any, points: np.ndarray, num_clusters: int, iterations: int, seed: int, gpu: int | None
) -> Any:
    kmeans = faiss.Kmeans(
        points.shape[1],
        num_clusters,
        niter=iterations,
        seed=seed % (1 << 31),
        # all take part; faiss's default samples 256 for each centroid
        max_points_per_centroid=len(points),
        min_points_per_centroid=1,
    )
    if gpu is not None and getattr(faiss, "get_num_gpus", int)() > 0:
        # this one alone: faiss's own choice is all of them, where other processes train
        resources = faiss.StandardGpuResources()
        kmeans.index = faiss.index_cpu_to_gpu(resources, gpu, kmeans.index)
    kmeans.train(points)
    return kmeans


def _blocks(features: np.ndarray) -> list[np.ndarray]:
    return [features[first : first + _BLOCK] for first in range(0, len(features), _BLOCK)]


def _as_they_are(features: np.ndarray) -> np.ndarray:
    return features


def _nearest(kmeans: Any, points: np.ndarray) -> np.ndarray:
    """Return the nearest centroid of each point, (n,) int64."""
    labels: np.ndarray = kmeans.index.search(points, 1)[1][:, 0].astype(np.int64)
    return labels


def whiten(features: np.ndarray, dim: int) -> np.ndarray:
    """Return principal components of equal variance, every row of unit length.

    Args:
        features: (N, D) float32.
        dim: components to keep; fewer where the features span fewer.

    Returns:
        (N, at most `dim`) float32.

    Raises:
        ValueError: if all rows are alike.
    """
    return _whitening(features, dim)(features)


def _whitening(features: np.ndarray, dim: int) -> Transform:
    """Return what whitens features like these, see `whiten`."""
    faiss = faiss_module()
    dim = min(dim, features.shape[1], len(features))
    pca = _trained_pca(faiss, features, dim)
    eigenvalues = faiss.vector_to_array(pca.eigenvalues)
    spanned = int((eigenvalues > _RANK * eigenvalues.max(initial=0)).sum())
    if spanned == 0:
        raise ValueError(
            "all images have the same features: the network has collapsed; try a smaller "
            "learning rate"
        )
    if spanned < dim:
        pca = _trained_pca(faiss, features, spanned)

    def apply(rows: np.ndarray) -> np.ndarray:
        reduced = pca.apply(rows)
        length = np.linalg.norm(reduced, axis=1, keepdims=True)
        scaled: np.ndarray = reduced / np.maximum(length, np.finfo(np.float32).tiny)
        return scaled

    return apply


def _trained_pca(faiss: Any, features: np.ndarray, dim: int) -> Any:
    pca = faiss.PCAMatrix(features.shape[1], dim, -0.5)  # -0.5: of equal variance
    pca.train(features)
    return pca


def own_gpu() -> int | None:
    """Return the number of the GPU that this process computes on, None without any."""
    return torch.cuda.current_device() if torch.cuda.is_available() else None


def check_faiss() -> None:
    """Refuse early what will need faiss.

    Raises:
        ImportError: without it, saying what to install.
    """
    faiss_module()


def faiss_module() -> Any:
    """Return faiss itself.

    Raises:
        ImportError: without it, saying what to install.
    """
    try:
        import faiss
    except ImportError as error:
        raise ImportError(
            "clustering needs faiss, which this plugin is installed with: pip install faiss-cpu, "
            "or faiss-gpu for GPUs"
        ) from error
    return faiss
