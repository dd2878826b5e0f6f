"""Labels by clustering features: PCA with whitening, unit length, k-means.

    labels = cluster_features(features, 10_000, seed=0)     # (N,), until the next clustering

faiss does the work, on a GPU where it is built for one.
Source: DeepCluster (Caron et al., 2018), section 3.3.
"""

from __future__ import annotations

from typing import Any

import numpy as np

_RANK = 1e-6  # eigenvalues below this share of the largest are noise: whitening would blow them up


def cluster_features(
    features: np.ndarray,
    num_clusters: int,
    *,
    pca_dim: int | None = 256,
    iterations: int = 20,
    seed: int = 0,
) -> np.ndarray:
    """Cluster images by their features.

    Args:
        features: (N, D) float32.
        num_clusters: K, from 1 to N.
        pca_dim: dimensions that are kept, whitened and brought to unit length; no more than the
            features have. None clusters the features as they are.
        iterations: number of iterations of k-means.
        seed: seed of its first centroids.

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
    if not np.isfinite(features).all():
        raise ValueError("features of some images are not finite: the network has diverged")
    if pca_dim is not None:
        features = whiten(features, pca_dim)
    has_gpu = getattr(faiss, "get_num_gpus", int)() > 0
    kmeans = faiss.Kmeans(
        features.shape[1],
        num_clusters,
        niter=iterations,
        seed=seed % (1 << 31),
        gpu=has_gpu,
        # all images take part, as in the paper; faiss's default samples 256 for each centroid
        max_points_per_centroid=len(features),
        min_points_per_centroid=1,
    )
    kmeans.train(features)
    _, labels = kmeans.index.search(features, 1)
    found: np.ndarray = labels[:, 0].astype(np.int64)
    return found


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
    reduced = pca.apply(features)
    length = np.linalg.norm(reduced, axis=1, keepdims=True)
    return reduced / np.maximum(length, np.finfo(np.float32).tiny)


def _trained_pca(faiss: Any, features: np.ndarray, dim: int) -> Any:
    pca = faiss.PCAMatrix(features.shape[1], dim, -0.5)  # -0.5: of equal variance
    pca.train(features)
    return pca


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
