"""Passes over all images beside the training, for labels that do not come from its steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import torch

from uic_plugin.pseudo_labels.kmeans import cluster_features
from uic_plugin.ranks import all_rows, on_first_rank
from uic_plugin.seeding import derive_seed

if TYPE_CHECKING:
    from uic_plugin.methods.pseudo_label import PseudoLabelMethod

Forward = Callable[[torch.Tensor], torch.Tensor]  # images (B, 3, H, W) to features (B, D)


@torch.no_grad()
def features_of_share(
    method: PseudoLabelMethod, *, training: bool, forward: Forward | None = None
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield index (B,) and features (B, D) of this rank's share of all images, batch by batch.

    It runs before the epoch's last update of the weights, so that the epoch boundary is over when
    callbacks write checkpoints.

    Args:
        method: with its `label_loader`.
        training: whether dropout and batch statistics are those of a training step.
        forward: forward pass of the network; its own by default.
    """
    network, head = method.labeller
    forward = forward or network
    modules = [*network.modules(), *head.modules()]
    modes = [module.training for module in modules]
    if not training:  # else they are as in a step: frozen layers in eval mode
        network.eval()
        head.eval()
    device = next(head.parameters()).device
    torch.manual_seed(
        derive_seed(method.seed, "label pass", method.label_epoch, method.global_rank)
    )
    for batch in method.label_loader:
        # decoded images become views on the device
        index, views, *_ = batch.to(device) if hasattr(batch, "to") else batch
        view = views if isinstance(views, torch.Tensor) else views[0]
        yield index.to(device), forward(view.to(device))
    for module, mode in zip(modules, modes, strict=True):
        module.training = mode


def cluster_images(
    method: PseudoLabelMethod,
    num_clusters: int | Sequence[int],
    *,
    seeds: Sequence[int],
    forward: Forward | None = None,
    pca_dim: int | None = 256,
    iterations: int = 20,
) -> torch.Tensor:
    """Cluster all images by one pass, once for each seed; every rank has all labels.

    The first rank clusters, on its own GPU if faiss is built for GPUs, and on no other's.

    Args:
        method: with its `label_loader`.
        num_clusters: K, of each clustering where they differ.
        seeds: seed of each clustering.
        forward: see `features_of_share`.
        pca_dim, iterations: see `cluster_features`.

    Returns:
        (N, number of seeds) int64.
    """
    counts = [num_clusters] * len(seeds) if isinstance(num_clusters, int) else num_clusters
    indices, parts = [], []
    for index, features in features_of_share(method, training=False, forward=forward):
        indices.append(index)
        parts.append(features.float().cpu())
    (index,) = all_rows(torch.cat(indices))
    order = index.cpu()
    device = next(method.head.parameters()).device
    own_gpu = (device.index or 0) if device.type == "cuda" else None

    def cluster(rows: torch.Tensor) -> torch.Tensor:
        found = [
            cluster_features(
                rows.numpy(),
                count,
                pca_dim=pca_dim,
                iterations=iterations,
                seed=seed,
                sample=method.options.kmeans_sample,
                gpu=own_gpu,
            )
            for count, seed in zip(counts, seeds, strict=True)
        ]
        return torch.stack([torch.from_numpy(labels) for labels in found], 1)

    labels = torch.empty(len(method.banks[0]), len(seeds), dtype=torch.int64)
    labels[order] = on_first_rank(cluster, torch.cat(parts), (len(order), len(seeds)))
    return labels
