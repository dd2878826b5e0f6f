"""Unsupervised Image Classification (Chen et al., 2020).

1. Every image has a label; it does not change within an epoch.
2. One view of each image, class-balanced order, cross-entropy against the labels.
3. The argmax of the same logits is the image's label in the next epoch.
4. An empty class gets half of the largest one.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

from uic_plugin.methods.options import UICOptions
from uic_plugin.methods.passes import cluster_images, features_of_share
from uic_plugin.methods.pseudo_label import PseudoLabelMethod
from uic_plugin.methods.ranks import max_over_ranks, sum_over_ranks, world_size
from uic_plugin.pseudo_labels import EpochTelemetry
from uic_plugin.pseudo_labels.step_labels import StepLabels, StepTelemetry
from uic_plugin.seeding import derive_seed


class UIC(PseudoLabelMethod):
    """UIC without a host; an adapter in `uic_plugin.hosts` puts a `BaseMethod` behind it."""

    name = "uic"
    options_class = UICOptions
    label_network: nn.ModuleDict | None  # moving average of network and head

    @property
    def label_pass(self) -> str | None:
        """Centered views for the ablation of Table 3; none in UIC itself."""
        return "center" if self.options.label_view == "center" else None

    @property
    def initial_labels(self) -> str:
        """The recipe's choice; clusters take the place of random labels before the first epoch."""
        return "balanced" if self.options.label_init == "balanced" else "random"

    @property
    def first_pass(self) -> str | None:
        """Centered views for clusters to begin with."""
        return "center" if self.options.label_init == "clusters" else None

    @property
    def fixes_empty_classes(self) -> bool:
        """The recipe's choice."""
        return bool(self.options.fix_empty_classes) and not self.is_streaming

    @property
    def is_balanced(self) -> bool:
        """The recipe's choice."""
        return super().is_balanced and not self.is_streaming

    @property
    def is_streaming(self) -> bool:
        """The recipe's choice."""
        return bool(self.options.label_source == "step")

    def make_telemetry(self, annotations: Any) -> EpochTelemetry:
        """Of labels that are kept, or of those that pass by."""
        if self.is_streaming:
            return StepTelemetry(self.options.num_pseudo_classes)
        return super().make_telemetry(annotations)

    def make_banks(self, num_samples: int, seeds: list[int], **bank: Any) -> Any:
        """Banks that keep labels, or that keep none."""
        if not self.is_streaming:
            return super().make_banks(num_samples, seeds, **bank)
        classes, window = self.options.num_pseudo_classes, self.options.prior_window
        return tuple(StepLabels(num_samples, classes, seed=s, window=window) for s in seeds)

    def targets(
        self, index: torch.Tensor, label_logits: torch.Tensor | None, annotations: torch.Tensor
    ) -> list[torch.Tensor]:
        """Of the banks, or of this step's first views."""
        if not self.is_streaming or label_logits is None:
            return super().targets(index, label_logits, annotations)
        parts = self.head.per_head(label_logits)
        labels = [
            bank.assign(part)
            for bank, part in zip(self.banks, parts, strict=True)
            if isinstance(bank, StepLabels)
        ]
        if isinstance(self.telemetry, StepTelemetry):
            self.telemetry.note(labels[0], annotations)
        return labels

    def relabelled(self) -> None:
        """Bring the ranks' running means and counts together, once an epoch."""
        telemetry = self.telemetry
        if isinstance(telemetry, StepTelemetry):
            telemetry.widen(int(max_over_ranks(torch.tensor([len(telemetry.table)]))))
            telemetry.table = sum_over_ranks(torch.from_numpy(telemetry.table)).numpy()
        for bank in self.banks:
            if isinstance(bank, StepLabels):
                bank.running = sum_over_ranks(bank.running) / world_size()
                bank.counts = sum_over_ranks(torch.from_numpy(bank.counts)).numpy()

    def build_head(self, features_dim: int, options: Any, seed: int) -> None:
        """The head, and a moving average of network and head where labels come from one."""
        super().build_head(features_dim, options, seed)
        self.label_network = None
        if options.label_momentum:
            parts = {"network": self._network, "head": self.head}
            self.label_network = nn.ModuleDict(copy.deepcopy(parts)).requires_grad_(False)

    def begin_labels(self) -> None:
        """Clusters of the untrained network's features, where the recipe asks for them."""
        if self.first_pass is None:
            return
        seeds = [derive_seed(bank.seed, "k-means", 0) for bank in self.banks]
        labels = cluster_images(self, self.options.num_pseudo_classes, seeds=seeds)
        for bank, column in zip(self.banks, labels.unbind(1), strict=True):
            bank.update(torch.arange(len(bank)), column)
            bank.begin()
            if self.fixer is not None:
                bank.fix_empty_classes(self.fixer)

    @torch.no_grad()
    def label_logits(self, view: torch.Tensor) -> torch.Tensor | None:
        """The moving average's, or those of the first of two views."""
        if self.label_network is not None:
            kept = self.options.label_momentum
            own = [*self._network.parameters(), *self.head.parameters()]
            for mean, now in zip(self.label_network.parameters(), own, strict=True):
                mean.mul_(kept).add_(now.to(mean), alpha=1 - kept)
            return self.label_network["head"](self.label_network["network"](view))[1]
        if self.options.views == 2:
            return self.head(self._network(view))[1]
        return None

    def assign(self, logits: torch.Tensor) -> torch.Tensor:
        """The classifier's own answer (Eq. 5)."""
        return logits.argmax(1)

    @torch.no_grad()
    def relabel(self) -> None:
        """With `label_view=center`, labels of centered views; dropout off, statistics frozen."""
        if self.label_pass is not None:
            for index, features in features_of_share(self, training=False):
                self.stage(index, self.head(features)[1])
