"""The host's own k-means of DeepCluster v2, on embeddings that its memory would hold."""

from __future__ import annotations

import torch
from solo.utils.kmeans import KMeans


def cluster_memory(embeddings: torch.Tensor, classes: int, iterations: int = 10) -> torch.Tensor:
    """Clusters (1, N) of one set of prototypes.

    Args:
        embeddings: (V, N, D) unit vectors of V views of each image.
        classes: prototypes.
        iterations: of k-means; 10 are the host's default.
    """
    views, num_images, dim = embeddings.shape
    kmeans = KMeans(
        world_size=1,
        rank=0,
        num_large_crops=views,
        dataset_size=num_images,
        proj_features_dim=dim,
        num_prototypes=[classes],
        kmeans_iters=iterations,
    )
    with torch.no_grad():
        assignments: torch.Tensor = kmeans.cluster_memory(torch.arange(num_images), embeddings)[0]
    return assignments
