"""Project features to few dimensions: for the map, and for computations in the page."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass

import numpy as np

MAPS = ("auto", "pca", "umap", "tsne")
_WORDS = {"pca": "principal components", "umap": "UMAP", "tsne": "t-SNE"}
_DIMENSIONS = 32
_FITTED = 20_000  # images that the principal components are fitted on
_CHUNK = 16_384


@dataclass(frozen=True)
class Projection:
    """The features as the page has them.

    Attributes:
        components: (N, D) int8, the first D <= 32 principal components of normalised features,
            all on one scale.
        kept: their share of the variance, in [0, 1].
        map: (N, 2) float32 positions on the map.
        kind: how the map was made: pca, umap or tsne.
    """

    components: np.ndarray
    kept: float
    map: np.ndarray
    kind: str


def project(features: np.ndarray, *, kind: str = "auto", seed: int = 0) -> Projection:
    """Project features for the page, in bounded memory.

    Args:
        features: (N, D) of any float type, may be memory-mapped; rows are normalised.
        kind: pca, umap (needs umap-learn), tsne, or auto: umap if it is installed, else pca.
        seed: of umap and tsne, and of the images that the components are fitted on.

    Raises:
        ValueError: for an unknown kind, or features that are not finite or not (N, D).
        ImportError: if umap is chosen and not installed.
    """
    kind = _kind(kind)
    if features.ndim != 2 or not features.shape[1]:
        raise ValueError(f"features must be of shape (images, dimensions), got {features.shape}")
    reduced, kept = _principal_components(features, seed)
    if kind == "pca" or len(reduced) < 4:
        position, kind = _two(reduced), "pca"
    elif kind == "umap":
        from umap import UMAP

        neighbours = min(15, len(reduced) - 1)
        position = UMAP(n_neighbors=neighbours, random_state=seed).fit_transform(reduced)
    else:
        from sklearn.manifold import TSNE

        perplexity = min(30.0, (len(reduced) - 1) / 3)
        position = TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(reduced)
    scale = 127 / max(float(np.abs(reduced).max()), 1e-12)
    components = np.rint(reduced * scale).astype(np.int8)
    return Projection(components, kept, np.asarray(position, np.float32), kind)


def describe_map(kind: str) -> str:
    """Return how a map of this kind is made here, for a user.

    Raises:
        ValueError: for an unknown kind.
        ImportError: if umap is chosen and not installed.
    """
    if kind == "auto" and not _has_umap():
        return f"{_WORDS['pca']} (pip install umap-learn for UMAP)"
    return _WORDS[_kind(kind)]


def _kind(kind: str) -> str:
    if kind not in MAPS:
        raise ValueError(f"--map must be one of {', '.join(MAPS)}, got {kind!r}")
    if kind == "umap" and not _has_umap():
        raise ImportError("--map umap needs umap-learn: pip install umap-learn, or --map tsne")
    if kind == "auto":
        return "umap" if _has_umap() else "pca"
    return kind


def _has_umap() -> bool:
    return importlib.util.find_spec("umap") is not None


def _principal_components(features: np.ndarray, seed: int) -> tuple[np.ndarray, float]:
    """Return components of normalised rows, (N, up to 32), and their share of the variance."""
    count = len(features)
    rows = np.arange(count)
    if count > _FITTED:
        rows = np.sort(np.random.default_rng(seed).choice(count, _FITTED, replace=False))
    sample = _normalised(features[rows])
    mean = sample.mean(0)
    values, vectors = np.linalg.eigh((sample - mean).T @ (sample - mean))
    width = min(_DIMENSIONS, len(values))
    axes = vectors[:, ::-1][:, :width]
    # the sign of an axis is arbitrary: make its largest entry positive
    axes = axes * np.sign(axes[np.abs(axes).argmax(0), np.arange(width)])
    reduced = np.empty((count, width), np.float32)
    for start in range(0, count, _CHUNK):
        part = slice(start, start + _CHUNK)
        reduced[part] = (_normalised(features[part]) - mean) @ axes
    total = float(values.clip(min=0).sum())
    return reduced, float(values[::-1][:width].sum()) / total if total > 0 else 1.0


def _normalised(rows: np.ndarray) -> np.ndarray:
    rows = np.asarray(rows, np.float32)
    if not np.isfinite(rows).all():
        raise ValueError("features hold NaN or infinite values: make them anew")
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def _two(reduced: np.ndarray) -> np.ndarray:
    return np.pad(reduced[:, :2], ((0, 0), (0, max(0, 2 - reduced.shape[1]))))
