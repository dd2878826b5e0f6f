"""DeepCluster (Caron et al., 2018).

1. Before every epoch, features of a centered view of all images, network in eval mode; of AlexNet
   and VGG16 what fc7 puts out before its ReLU, which the authors' code cuts off.
2. PCA with whitening, unit length, k-means: the clusters are the labels.
3. A new classifier, class-balanced order without empty clusters, cross-entropy.

Source: sections 3.2 to 3.4 of its paper.
"""

from __future__ import annotations

import torch

from uic_plugin.methods.kept_labels import LabelPlan
from uic_plugin.methods.options import DeepClusterOptions
from uic_plugin.methods.passes import cluster_images
from uic_plugin.methods.pseudo_label import PseudoLabelMethod
from uic_plugin.seeding import derive_seed


class DeepCluster(PseudoLabelMethod):
    """DeepCluster without a host."""

    name = "deepcluster"
    options_class = DeepClusterOptions

    @property
    def plan(self) -> LabelPlan:
        """Ask for a pass over centered views before every epoch."""
        return LabelPlan(
            first_pass="center",
            boundary_pass="center",
            is_balanced=self.options.balanced_sampling,
        )

    def relabel(self) -> None:
        """Stage clusters of the features of all images."""
        options = self.options
        labels = cluster_images(
            self,
            options.num_pseudo_classes,
            seeds=[derive_seed(self.seed, "k-means", self.label_epoch)],
            forward=getattr(self._network, "before_last_activation", None),
            pca_dim=options.pca_dim,
            iterations=options.kmeans_iterations,
        )
        self.banks[0].update(torch.arange(len(labels)), labels[:, 0])

    def start_labels(self) -> None:
        """Start from clusters of the untrained network's features."""
        self.relabel()
        self.banks[0].begin()

    @torch.no_grad()
    def start_epoch(self) -> None:
        """Begin with a new classifier, and have the optimizer forget the old one."""
        if not self.options.reset_classifier:
            return
        generator = torch.Generator().manual_seed(
            derive_seed(self.seed, "classifier", self.banks[0].epoch)
        )
        for parameter in self.head.classifier.parameters():
            if parameter.ndim > 1:
                values = 0.01 * torch.randn(parameter.shape, generator=generator)
                parameter.copy_(values, non_blocking=True)
            else:
                parameter.zero_()
            for optimizer in self.trainer.optimizers:
                optimizer.state.pop(parameter, None)
