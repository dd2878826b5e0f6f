"""DeepCluster (Caron et al., 2018).

1. Before every epoch, features of a centered view of all images, network in eval mode; of AlexNet
   and VGG16 what fc7 puts out before its ReLU, which the authors' code cuts off.
2. PCA with whitening, unit length, k-means: the clusters are the labels.
3. A new classifier, class-balanced order without empty clusters, cross-entropy.

Source: sections 3.2 to 3.4 of its paper.
"""

from __future__ import annotations

import torch

from uic_plugin.methods.options import DeepClusterOptions
from uic_plugin.methods.passes import cluster_images
from uic_plugin.methods.pseudo_label import PseudoLabelMethod
from uic_plugin.seeding import derive_seed


class DeepCluster(PseudoLabelMethod):
    """DeepCluster without a host."""

    name = "deepcluster"
    options_class = DeepClusterOptions
    labels_each_step = False

    @property
    def label_pass(self) -> str | None:
        """Centered views."""
        return "center"

    def relabel(self) -> None:
        """Cluster the features of all images."""
        options = self.options
        labels = cluster_images(
            self,
            options.num_pseudo_classes,
            seeds=[derive_seed(self.seed, "k-means", self.label_epoch)],
            forward=getattr(self._network, "before_last_activation", None),
            pca_dim=options.pca_dim,
            iterations=options.kmeans_iterations,
        )
        self._bank.update(torch.arange(len(labels)), labels[:, 0])

    def begin_labels(self) -> None:
        """Clusters of the untrained network's features."""
        self.relabel()
        self._bank.begin()

    @torch.no_grad()
    def begin_epoch(self) -> None:
        """A new classifier, and an optimizer that has forgotten the old one."""
        if not self.options.reset_classifier:
            return
        generator = torch.Generator().manual_seed(
            derive_seed(self.seed, "classifier", self._bank.epoch)
        )
        for parameter in self.head.classifier.parameters():
            if parameter.ndim > 1:
                values = 0.01 * torch.randn(parameter.shape, generator=generator)
                parameter.copy_(values)
            else:
                parameter.zero_()
            for optimizer in self.trainer.optimizers:
                optimizer.state.pop(parameter, None)
