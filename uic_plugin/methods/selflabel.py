"""SelfLabel (Asano, Rupprecht and Vedaldi, 2020).

1. Labels fill all classes equally and cost the network's predictions least: an optimal transport,
   which Sinkhorn-Knopp solves on the softmax to the power lambda.
2. They are assigned anew at some epochs in the course of the training, more often at its start,
   from an augmented view of every image with the network as it is in training.
3. Between, cross-entropy against them; with several heads on one network, each has its own.

Source: sections 3.1 to 3.3 of its paper. There, labels may also change within an epoch; here they
do so at an epoch boundary.
"""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch

from uic_plugin.methods.kept_labels import LabelPlan
from uic_plugin.methods.options import SelfLabelOptions
from uic_plugin.methods.passes import features_of_share
from uic_plugin.methods.pseudo_label import PseudoLabelMethod
from uic_plugin.pseudo_labels.sinkhorn import open_scores, sinkhorn_labels
from uic_plugin.ranks import max_over_ranks, sum_over_ranks


class SelfLabel(PseudoLabelMethod):
    """SelfLabel without a host."""

    name = "selflabel"
    options_class = SelfLabelOptions

    @property
    def plan(self) -> LabelPlan:
        """Ask for passes over augmented views, and begin with classes of equal size."""
        return LabelPlan(
            initial="balanced",
            first_pass="train",
            boundary_pass="train",
            batch_statistics=True,
            is_balanced=self.options.balanced_sampling,
        )

    def is_update(self, epoch: int) -> bool:
        """Tell whether labels are assigned anew when `epoch`, counted from 1, is over."""
        options, whole = self.options, self.trainer.max_epochs
        power = 2 if options.label_spacing == "quadratic" else 1
        count = max(options.label_updates - 1, 1) ** power
        # in whole numbers: a rounded time may fall into the epoch after its own
        times = (whole * number**power for number in range(options.label_updates))
        return any((epoch - 1) * count < time <= epoch * count for time in times)

    @torch.no_grad()
    def relabel(self) -> None:
        """Stage equal classes, where the schedule has an update in the epoch that ends."""
        if self.is_update(self.label_epoch):
            self._stage_transport()

    @torch.no_grad()
    def start_labels(self) -> None:
        """Start from equal classes of the untrained network's predictions."""
        self._stage_transport()
        for bank in self.banks:
            bank.begin()

    def _stage_transport(self) -> None:
        """Stage the labels that fill all classes equally, of every head."""
        loader, head = self.label_loader, self.head
        # of H heads the embeddings are kept, and the logits of one head at a time
        keeps_logits = self.options.heads == 1
        width = head.num_classes if keeps_logits else head.embedding_dim
        num_rows = len(loader.batch_sampler.sampler)
        with self._open_scores(num_rows, width) as kept:
            order, done = [], 0
            for index, features in features_of_share(self, training=True):
                embeddings, logits = head(features)
                rows = logits if keeps_logits else embeddings
                kept[done : done + len(rows)] = rows.float()
                order.append(index)
                done += len(rows)
            index = torch.cat(order)
            columns = [self._transport(kept, number) for number in range(self.options.heads)]
        self.stage(index, torch.stack(columns, 1).to(index.device))

    def _transport(self, kept: torch.Tensor, number: int) -> torch.Tensor:
        """Return the labels (n,) of one head for this rank's images."""
        options, head = self.options, self.head
        device = next(head.parameters()).device
        # the softmax to the power lambda is that of the loss, whose logits the temperature divides
        power = options.sinkhorn_lambda / options.temperature

        def solve(scores: torch.Tensor) -> torch.Tensor:
            return sinkhorn_labels(
                scores,
                power=power,
                tolerance=options.sinkhorn_tolerance,
                device=device,
                total=sum_over_ranks,
                largest=max_over_ranks,
            ).labels

        if options.heads == 1:
            return solve(kept)
        with self._open_scores(len(kept), head.num_classes) as scores:
            for first in range(0, len(kept), 8192):
                rows = slice(first, first + 8192)
                scores[rows] = head.one_head(kept[rows].to(device), number).float()
            return solve(scores)

    def _open_scores(self, num_rows: int, width: int) -> AbstractContextManager[torch.Tensor]:
        """Return a place for scores (n, width), on the device while they fit."""
        device = next(self.head.parameters()).device
        limit = self.options.device_scores_gb * 1e9
        return open_scores(num_rows, width, device=device, device_bytes=limit)
