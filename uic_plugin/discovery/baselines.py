"""Other clusterings of the same features: k-means, Gaussian mixture, spectral.

All are scikit-learn's. k-means is the best of several starts by inertia, on unit features; the
others use 64 principal components of these, few enough for a mixture to estimate covariances.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from uic_plugin.discovery.reduction import fit_reduction, reduce_features

_DIMS = 64
_STARTS = 10


def kmeans_labels(
    features: np.ndarray, classes: int, seed: int, *, starts: int = _STARTS
) -> np.ndarray:
    """Return labels (N,) of the best of several k-means, by inertia, of unit features."""
    from sklearn.cluster import KMeans

    rows = torch.nn.functional.normalize(
        torch.from_numpy(np.array(features, np.float32)), dim=1
    ).numpy()
    return KMeans(classes, n_init=starts, random_state=seed).fit_predict(rows)


def mixture_labels(features: np.ndarray, classes: int, seed: int) -> np.ndarray:
    """Return labels (N,) of a mixture of Gaussians with full covariances."""
    from sklearn.mixture import GaussianMixture

    model = GaussianMixture(classes, reg_covar=1e-4, n_init=1, random_state=seed)
    return model.fit_predict(_components(features, seed))


def spectral_labels(features: np.ndarray, classes: int, seed: int) -> np.ndarray:
    """Return labels (N,) of spectral clustering of the graph of 25 nearest neighbours.

    Of fewer neighbours where an average class is smaller.
    """
    from sklearn.cluster import SpectralClustering

    model = SpectralClustering(
        classes,
        affinity="nearest_neighbors",
        n_neighbors=min(25, max(1, len(features) // classes)),
        random_state=seed,
    )
    return model.fit_predict(_components(features, seed))


BASELINES: dict[str, Callable[[np.ndarray, int, int], np.ndarray]] = {
    "k-means": kmeans_labels,
    "mixture": mixture_labels,
    "spectral": spectral_labels,
}


def _components(features: np.ndarray, seed: int) -> np.ndarray:
    reduction = fit_reduction(features, _DIMS, seed=seed, equal_spread=False)
    return reduce_features(features, reduction).double().numpy()
