"""Variants of UIC, one small class each: what it replaces, and the option that asks for it.

A class does nothing unless its option is set, so `VariedUIC`, which recipes call `uic`, is the
paper's UIC by default.
"""

from __future__ import annotations

import copy
import dataclasses
import itertools

import torch
import torch.nn.functional as F
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from uic_plugin.methods.kept_labels import LabelPlan
from uic_plugin.methods.options import PseudoLabelOptions
from uic_plugin.methods.passes import cluster_images, features_of_share
from uic_plugin.methods.uic import UIC
from uic_plugin.methods.uic_step_labels import StepLabelled
from uic_plugin.methods.uic_swapped import SwappedLabels
from uic_plugin.ranks import sum_over_ranks
from uic_plugin.seeding import derive_seed


class TwoViews(UIC):
    """`views=2`: labels come from a first view, the loss from the second.

    It replaces `label_logits`.
    """

    @torch.no_grad()
    def label_logits(self, view: torch.Tensor) -> torch.Tensor | None:
        """Return the logits of the first of two views."""
        if self.options.views < 2 or self.options.label_source == "swap":
            return super().label_logits(view)
        logits = self.head(self._network(view))[1]
        # In mixed precision some versions of torch keep the weights' copies of a pass without
        # gradients, and the pass that learns would take them: no weight would have a gradient
        # (pytorch #112583).
        torch.clear_autocast_cache()
        return logits


class AveragedLabels(UIC):
    """`label_momentum`: labels come from a moving average of the weights.

    It replaces `label_logits` and `labeller`, and adds the averaged network to the weights.

    Attributes:
        label_network: moving average of network and head; None without the option.
    """

    label_network: nn.ModuleDict | None
    _averaged: tuple[list[nn.Parameter], ...] = ()  # averages, and what they are of

    def build_head(self, features_dim: int, options: PseudoLabelOptions, seed: int) -> None:
        """Add the head and, as a copy of network and head, their moving average."""
        super().build_head(features_dim, options, seed)
        self.label_network = None
        momentum = self.options.label_momentum
        if momentum:
            parts = {"network": self._network, "head": self.head}
            self.label_network = nn.ModuleDict(copy.deepcopy(parts)).requires_grad_(False)
            self._average = get_ema_multi_avg_fn(momentum)

    @torch.no_grad()
    def label_logits(self, view: torch.Tensor) -> torch.Tensor | None:
        """Move the average towards the present weights, and return its logits.

        Of batches whose gradients are added up it moves in the first alone: the optimizer has then
        made a step since the last move, or a run begins.
        """
        if self.label_network is None:
            return super().label_logits(view)
        is_center = self.options.label_view == "center" and self.options.label_source != "swap"
        if self.steps_done % self.trainer.accumulate_grad_batches == 0:
            self._move_average(self.label_network, with_statistics=is_center)
        if is_center:
            return super().label_logits(view)
        return self.label_network["head"](self.label_network["network"](view))[1]

    def _move_average(self, average: nn.ModuleDict, *, with_statistics: bool) -> None:
        """Move the averages of all weights once."""
        if not self._averaged:  # kept: to walk through all modules in every step takes its time
            weights = [*self._network.parameters(), *self.head.parameters()]
            self._averaged = (list(average.parameters()), weights)
        self._average(*self._averaged, 0)
        if with_statistics:
            self._average_statistics(average)

    @property
    def labeller(self) -> tuple[nn.Module, nn.Module]:
        """Return the averaged network and head."""
        if self.label_network is None:
            return super().labeller
        return self.label_network["network"], self.label_network["head"]

    def _average_statistics(self, average: nn.Module) -> None:
        """Average BatchNorm's statistics, too: no step of the average's own moves them."""
        own = [*self._network.buffers(), *self.head.buffers()]
        pairs = list(zip(average.buffers(), own, strict=True))
        moving = [pair for pair in pairs if pair[0].is_floating_point()]
        if moving:
            self._average(*map(list, zip(*moving, strict=True)), 0)


class CenteredLabels(UIC):
    """`label_view=center`: labels come from a pass over centered views (the paper's Table 3).

    It replaces `label_images` by `relabel`: the network is in eval mode, its dropout off and its
    statistics frozen. With `label_every`, not every epoch boundary has such a pass; labels then
    stay as they are.
    """

    @property
    def plan(self) -> LabelPlan:
        """Ask for a pass over centered views at every epoch boundary."""
        plan = super().plan
        if self.options.label_view != "center":
            return plan
        return dataclasses.replace(plan, boundary_pass="center")

    def label_images(self, index: torch.Tensor, logits: torch.Tensor) -> None:
        """Leave the answers of a training step alone."""
        if self.options.label_view != "center":
            super().label_images(index, logits)
        else:
            self.stage_again(index)

    @torch.no_grad()
    def relabel(self) -> None:
        """Stage the answers to centered views."""
        super().relabel()
        if self.options.label_view != "center":
            return
        is_last = self.label_epoch == self.trainer.max_epochs
        if self.label_epoch % self.options.label_every and not is_last:
            return
        head = self.labeller[1]
        for index, features in features_of_share(self, training=False):
            super().label_images(index, head(features)[1])


class FixedLabels(UIC):
    """`fixed_labels`: labels of a file, which never change (the paper's Table 2).

    It replaces the labels that `label_images` stages.
    """

    @property
    def plan(self) -> LabelPlan:
        """Leave empty classes as they are."""
        plan = super().plan
        if self.options.fixed_labels is None:
            return plan
        return dataclasses.replace(plan, fixes_empty_classes=False)

    def label_images(self, index: torch.Tensor, logits: torch.Tensor) -> None:
        """Stage the same labels again."""
        if self.options.fixed_labels is None:
            super().label_images(index, logits)
            return
        self.observe(logits)
        self.stage_again(index)


class ClusterStart(UIC):
    """`label_init=clusters`: the first labels are clusters of the untrained network's features.

    It replaces `start_labels`. With `label_source=swap` a cosine classifier gives the first labels;
    it then begins with the directions of these clusters.
    """

    @property
    def plan(self) -> LabelPlan:
        """Ask for a pass over centered views before the first epoch."""
        plan = super().plan
        if self.options.label_init != "clusters":
            return plan
        return dataclasses.replace(
            plan, first_pass="center", batch_statistics=self._starts_classifier
        )

    def start_labels(self) -> None:
        """Cluster the features, for each head with a seed of its own."""
        if self.options.label_init != "clusters":
            super().start_labels()
            return
        seeds = [derive_seed(bank.seed, "k-means", 0) for bank in self.banks]
        labels = cluster_images(self, self.options.head_classes, seeds=seeds)
        for bank, column in zip(self.banks, labels.unbind(1), strict=True):
            bank.update(torch.arange(len(bank)), column)
            bank.begin()
            fixer = self.fixer_of(bank)
            if fixer is not None:
                bank.fix_empty_classes(fixer)
        if self._starts_classifier:
            self._start_classifier()

    @property
    def _starts_classifier(self) -> bool:
        return self.options.label_source == "swap" and self.options.classifier == "cosine"

    @torch.no_grad()
    def _start_classifier(self) -> None:
        """Turn each class's direction to the mean embedding of its images, less that of all.

        The embeddings are made as in the steps to come, with statistics of the batch; running ones
        stay as they are. A class without images keeps its direction.
        """
        self.wait_for_writers()  # other ranks read labels that the first one has written
        weight = self.head.classifier.weight
        kept = [value.clone() for value in self.buffers()]
        sums = weight.new_zeros(len(weight), weight.shape[1] + 1)  # and the number of images
        firsts = itertools.accumulate(self.head.sizes, initial=0)
        offsets = torch.tensor(list(firsts)[:-1], device=weight.device)
        for index, features in features_of_share(self, training=True):
            embeddings = F.normalize(self.labeller[1](features)[0].to(weight), dim=1)
            counted = torch.cat([embeddings, embeddings.new_ones(len(index), 1)], 1)
            labels = torch.stack([bank.targets(index) for bank in self.banks], 1) + offsets
            for column in labels.unbind(1):
                sums.index_add_(0, column, counted)
        for value, before in zip(self.buffers(), kept, strict=True):
            value.copy_(before)
        sums = sum_over_ranks(sums)
        counts = sums[:, -1:]
        means = sums[:, :-1] / counts.clamp_min(1)
        common = sums[: self.head.num_classes]
        centered = means - common[:, :-1].sum(0) / common[:, -1].sum().clamp_min(1)
        directions = F.normalize(centered, dim=1) * weight.norm(dim=1, keepdim=True)
        weight.copy_(torch.where(counts > 0, directions, weight))
        labeller = self.labeller[1]
        if labeller is not self.head:  # a moving average begins as a copy
            labeller.load_state_dict(self.head.state_dict())


class VariedUIC(
    ClusterStart,
    SwappedLabels,
    StepLabelled,
    CenteredLabels,
    FixedLabels,
    AveragedLabels,
    TwoViews,
    UIC,
):
    """UIC with every variant at hand, all of them off by default."""
