"""The classes that a method found itself, and how well they agree with the annotations.

    logits = own_logits(method, images)             # a list of (B, K), one for each head
    figures = own_class_figures(logits_of_all, features, annotations)

Own classes are the strongest output of a method's classifier or prototypes for a centered view, in
eval mode: of UIC, DeepCluster and SelfLabel their heads, of SwAV, DeepCluster v2 and DINO their
prototypes. Methods without either have none; k-means on their features stands for them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from uic_plugin.evaluation.clustering import hungarian_accuracy
from uic_plugin.pseudo_labels.kmeans import cluster_features, own_gpu
from uic_plugin.pseudo_labels.telemetry import nmi, purity


def own_logits(method: Any, features: torch.Tensor) -> list[torch.Tensor]:
    """Return the logits of a method's own classes for features (B, D): one (B, K) for each head.

    Args:
        method: in eval mode, of this plugin or of the host; one that has an `own_logits` says
            itself.
        features: of its backbone.

    Returns:
        One entry for each head or set of prototypes; none for a method without classes.
    """
    says: Callable[[torch.Tensor], list[torch.Tensor]] | None = getattr(method, "own_logits", None)
    if says is not None:
        return says(features)
    head: Any = getattr(method, "head", None)
    if hasattr(head, "per_head"):
        return list(head.per_head(head(features)[1]))
    prototypes, projector = getattr(method, "prototypes", None), getattr(method, "projector", None)
    if isinstance(prototypes, nn.Module) and isinstance(projector, nn.Module):
        embeddings = nn.functional.normalize(projector(features), dim=1)
        sets = prototypes if isinstance(prototypes, nn.ModuleList) else [prototypes]
        return [part(embeddings) for part in sets]
    if isinstance(head, nn.Module) and hasattr(head, "last_layer"):  # DINO
        return [head(features)]
    return []


def own_class_figures(
    labels: list[tuple[np.ndarray, int]], features: np.ndarray, annotations: np.ndarray, seed: int
) -> dict[str, Any]:
    """Return the figures of a method's own classes on annotated images.

    Args:
        labels: of each head the classes (N,) and their number K.
        features: (N, D).
        annotations: (N,) annotated classes.
        seed: of the merging.

    Returns:
        `own_classes` (K of the first head), `own_nmi`, `own_accuracy` (of the best one-to-one
        mapping), `own_purity`; and `own_nmi_annotated`, `own_accuracy_annotated` at K = the number
        C of annotated classes: of the head that has C, else of the first one's classes, merged into
        C (see `merged`) where more of them have images. Empty for a method without classes.
    """
    if not labels:
        return {}
    first, count = labels[0]
    figures: dict[str, Any] = {
        "own_classes": count,
        "own_nmi": nmi(annotations, first),
        "own_accuracy": hungarian_accuracy(annotations, first),
        "own_purity": purity(annotations, first),
    }
    wanted = len(np.unique(annotations))
    fitting = next((own for own, number in labels if number == wanted), None)
    if fitting is None:
        has_more = len(np.unique(first)) > wanted
        fitting = merged(first, features, wanted, seed=seed) if has_more else first
    figures["own_nmi_annotated"] = nmi(annotations, fitting)
    figures["own_accuracy_annotated"] = hungarian_accuracy(annotations, fitting)
    return figures


def merged(labels: np.ndarray, features: np.ndarray, count: int, *, seed: int) -> np.ndarray:
    """Merge classes into fewer: k-means of their mean features, weighted by their sizes.

    Args:
        labels: (N,) classes; at least `count` of them have images.
        features: (N, D), brought to unit length.
        count: number of classes afterwards.
        seed: of k-means.

    Returns:
        (N,) classes in [0, count).
    """
    from sklearn.cluster import KMeans

    used, rows, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    unit = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    sums = np.zeros((len(used), features.shape[1]))
    np.add.at(sums, rows, unit)
    kmeans = KMeans(count, n_init=10, random_state=seed % (1 << 31))
    groups = kmeans.fit_predict(sums / sizes[:, None], sample_weight=sizes)
    return np.asarray(groups[rows], dtype=np.int64)


def kmeans_figures(
    features: np.ndarray, annotations: np.ndarray, clusters: int, seed: int
) -> dict[str, Any]:
    """Return the figures of k-means on PCA-whitened features, at K as given and as annotated.

    Returns:
        `kmeans_clusters`, `kmeans_nmi`, `kmeans_accuracy`, `kmeans_purity`, and with the number of
        annotated classes for K `kmeans_nmi_annotated` and `kmeans_accuracy_annotated`.
    """
    given = cluster_features(features, clusters, seed=seed, gpu=own_gpu())
    wanted = len(np.unique(annotations))
    few = (
        given
        if wanted == clusters
        else cluster_features(features, wanted, seed=seed, gpu=own_gpu())
    )
    return {
        "kmeans_clusters": clusters,
        "kmeans_nmi": nmi(annotations, given),
        "kmeans_accuracy": hungarian_accuracy(annotations, given),
        "kmeans_purity": purity(annotations, given),
        "kmeans_nmi_annotated": nmi(annotations, few),
        "kmeans_accuracy_annotated": hungarian_accuracy(annotations, few),
    }
