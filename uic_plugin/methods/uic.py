"""Unsupervised Image Classification (Chen et al., 2020).

1. Every image has a label; it does not change within an epoch.
2. One view of each image, class-balanced order, cross-entropy against the labels.
3. The argmax of the same logits is the image's label in the next epoch.
4. An empty class gets half of the largest one.
"""

from __future__ import annotations

import torch

from uic_plugin.methods.options import UICOptions
from uic_plugin.methods.pseudo_label import PseudoLabelMethod
from uic_plugin.seeding import derive_seed


class UIC(PseudoLabelMethod):
    """UIC without a host; an adapter in `uic_plugin.hosts` puts a `BaseMethod` behind it."""

    name = "uic"
    options_class = UICOptions

    @property
    def label_pass(self) -> str | None:
        """Centred views for the ablation of Table 3; none in UIC itself."""
        return "center" if self.options.label_view == "center" else None

    @property
    def initial_labels(self) -> str:
        """The recipe's choice; clusters take the place of random labels before the first epoch."""
        return "balanced" if self.options.label_init == "balanced" else "random"

    @property
    def first_pass(self) -> str | None:
        """Centred views for clusters to begin with."""
        return "center" if self.options.label_init == "clusters" else None

    @torch.no_grad()
    def begin_labels(self) -> None:
        """Clusters of the untrained network's features, where the recipe asks for them."""
        if self.first_pass is None:
            return
        for bank in self.banks:
            seed = derive_seed(bank.seed, "k-means", 0)
            labels = self.cluster_all(self.options.num_pseudo_classes, seed=seed)
            bank.update(torch.arange(len(bank)), labels)
            bank.begin()
            if self.fixer is not None:
                bank.fix_empty_classes(self.fixer)

    def assign(self, logits: torch.Tensor) -> torch.Tensor:
        """The classifier's own answer (Eq. 5)."""
        return logits.argmax(1)

    @torch.no_grad()
    def relabel(self) -> None:
        """With `label_view=center`, labels of centred views; dropout off, statistics frozen."""
        if self.label_pass is not None:
            for index, features in self._pass(training=False):
                self._stage(index, self.head(features)[1])
