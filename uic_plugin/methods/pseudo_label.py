"""The template of every method that learns from pseudo labels: a training step, an epoch boundary.

A training step, in this order (`*` marks what a method may replace):

    start_epoch *     once, before the first step of an epoch
    choose_views *    which views label and which are learned from
    label_logits *    logits that label the images, if not those that the loss compares
    training_step     of the host: forward pass of network and head, online classifier
    targets *         this epoch's labels, which the loss compares the logits with
    step_loss *       the cross-entropy of these
    label_images *    what the logits say about the next epoch's labels; `stage` keeps it

After the last step of an epoch comes the epoch boundary, `_end_epoch`:

    relabel *         stage labels of all images, where that takes a pass of its own
    commit *          staged labels become targets, empty classes are filled; metrics

Before all that, `attach` makes the banks for a dataset, and `start_labels` * sets the labels of the
first epoch where they come from the untrained network. `plan` * says what else an order, a bank or
a loader has to know. The template is a mixin before a host's `BaseMethod`; it knows Lightning's
hooks by name and imports neither Lightning nor the host.

Source: UIC, section 3.2, Eq. 5 and 6, with t1 and t2 the views of two successive epochs.
"""

from __future__ import annotations

import math
import time
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from uic_plugin.methods.banks import commit_bank, count_staged
from uic_plugin.methods.kept_labels import KeptLabels
from uic_plugin.methods.options import PseudoLabelOptions
from uic_plugin.networks.heads import PseudoClassHead
from uic_plugin.pseudo_labels import EpochTelemetry
from uic_plugin.ranks import all_rows, sum_over_ranks
from uic_plugin.seeding import derive_seed, seed_step


class PseudoLabelMethod(KeptLabels):
    """A training step and an epoch boundary, shared by all pseudo-label methods and hosts.

    An adapter provides `_network`, the backbone.

    Attributes:
        label_loader: batches [index, views, ...] of this rank's share of all images, for labels of
            a pass of their own.
        label_epoch: epoch that the labels of such a pass are for.
        epoch_metrics: what the last epoch boundary has logged.
        resumes: whether its training resumes from a checkpoint, which has its labels.
        begin_seconds: time that the labels of the first epoch took.
        boundary_seconds: time of the last epoch boundary, labels of their own pass included.
    """

    label_loader: Any = None
    label_epoch = 0
    epoch_metrics: dict[str, float] | None = None
    resumes = False
    begin_seconds = 0.0
    boundary_seconds = 0.0

    def build_head(self, features_dim: int, options: PseudoLabelOptions, seed: int) -> None:
        """Add the pseudo-class head; its weights depend on the seed alone.

        They do not depend on the width of the host's online classifier, which is built before it
        and differs with and without annotations.
        """
        self.options, self.seed = options, seed
        self.telemetry = EpochTelemetry()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(seed, "head"))
            self.head = PseudoClassHead(
                features_dim,
                options.num_pseudo_classes,
                mlp_layers=options.head_layers if options.head == "mlp" else 0,
                mlp_width=options.head_width,
                batch_norm=options.head_batch_norm,
                mlp_output=options.head_output,
                cosine=options.classifier == "cosine",
                heads=options.heads,
                more_heads=options.head_classes[options.heads :],
            )

    @property
    def labeller(self) -> tuple[nn.Module, nn.Module]:
        """Return the network and the head that label images in a pass of their own."""
        return self._network, self.head

    def start_labels(self) -> None:
        """Set the labels of the first epoch, where they come from the untrained network."""

    def start_epoch(self) -> None:
        """Prepare a new epoch before its first step."""

    def choose_views(self, views: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the view that labels and the one that is learned from, (V * B, C, H, W) each.

        Args:
            views: (B, C, H, W) each; here V is 1, more views stand one below the other.
        """
        return views[0], views[self.options.views - 1]

    def label_logits(self, view: torch.Tensor) -> torch.Tensor | None:
        """Return logits that label images, None for those that the loss compares.

        Args:
            view: (V * B, C, H, W), see `choose_views`.

        Returns:
            (V * B, sum of K), without a gradient.
        """
        return None

    def targets(
        self, index: torch.Tensor, label_logits: torch.Tensor, annotations: torch.Tensor
    ) -> list[torch.Tensor]:
        """Return the labels that the loss compares with, for each head; here the banks'.

        Args:
            index: (B,) image indices.
            label_logits: (V * B, sum of K), see `label_logits`; where that returns none, those of
                the view that is learned from.
            annotations: (B,) classes by people, for telemetry alone.

        Returns:
            For each head (V * B,) classes, or (V * B, K) shares of them.
        """
        return [bank.targets(index) for bank in self.banks]

    def step_loss(
        self,
        logits: torch.Tensor,
        targets: list[torch.Tensor],
        embeddings: torch.Tensor,
        views: list[torch.Tensor],
    ) -> torch.Tensor:
        """Return what is learned from, a scalar; here of the logits (V * B, sum of K) alone.

        Args:
            logits, targets: see `targets`.
            embeddings: (V * B, D) that the logits are made of.
            views: all views of the images.
        """
        return self._loss(logits, targets)

    def label_images(self, index: torch.Tensor, logits: torch.Tensor) -> None:
        """Take note of a step's answers; here for telemetry alone, labels stay as they are.

        Args:
            index: (B,) image indices.
            logits: (V * B, sum of K) without a gradient.
        """
        self.observe(logits)
        self.stage_again(index)

    def observe(self, logits: torch.Tensor) -> None:
        """Take note of the first head's answers for telemetry; logits as in `label_images`."""
        self.telemetry.observe(self.head.per_head(logits)[0] / self.options.temperature)

    def relabel(self) -> None:
        """Stage labels of all images for the next epoch, where that takes a pass of its own."""

    def commit(self) -> dict[str, float]:
        """Make the staged labels those of the next epoch, and return the metrics of this one."""
        first, *others = self.banks
        boundary = commit_bank(first, self.fixer, self.telemetry)
        for bank in others:
            commit_bank(bank, self.fixer_of(bank))
        return self.telemetry.summary(first, boundary)

    def forward(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Return the host's outputs, with `z` (B, D) and `pseudo_logits` (B, sum of K) beside."""
        out = super().forward(*args, **kwargs)
        out["z"], out["pseudo_logits"] = self.head(out["feats"])
        return out

    def on_train_epoch_start(self) -> None:
        """Count the epoch's steps from 0, or from where a resumed run stopped."""
        super().on_train_epoch_start()
        if not self._resumes_within_epoch:
            self.steps_done = 0
        self._resumes_within_epoch = False

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        """Return the cross-entropy against this epoch's labels, plus the host's online classifier.

        Args:
            batch: [index (B,), views, annotations (B,)]; `views` is a list of (B, C, H, W).
            batch_idx: number of the batch within the epoch.

        Raises:
            ValueError: for fewer views of each image than the options need.
        """
        index, views, annotations = batch
        views = [views] if isinstance(views, torch.Tensor) else list(views)
        wanted = self.options.views + self.options.small_crops
        if len(views) < wanted:
            raise ValueError(
                f"views={self.options.views} needs {wanted} crops of each image, the augmentation "
                f"makes {len(views)}: raise augmentations.0.num_crops"
            )
        # The step's own draws (dropout) come from (seed, epoch, rank, step): a resume repeats them.
        seed_step(derive_seed(self.seed, "step", self._epoch, self.global_rank, self.steps_done))
        if self.steps_done == 0:
            self.start_epoch()
        label_view, train_view = self.choose_views(views)
        label_logits = self.label_logits(label_view)

        repeated = annotations.repeat(len(train_view) // len(index))
        outs = super().training_step([index, [train_view], repeated], batch_idx)
        # main's step goes through `forward`, which has called the head; pypi's does not
        if "pseudo_logits" in outs:
            embeddings, logits = outs["z"][0], outs["pseudo_logits"][0]
        else:
            embeddings, logits = self.head(outs["feats"][0])
        if label_logits is None:
            label_logits = logits.detach()
        targets = self.targets(index, label_logits, annotations)
        loss = self.step_loss(logits, targets, embeddings, views)
        self.label_images(index, label_logits)
        self.log_loss(loss)
        self.steps_done += 1
        # Here rather than in a later hook: checkpoint callbacks run before those, and what they
        # save has to hold the new labels already.
        if self._is_last_step():
            self._end_epoch()
        return self.with_online_loss(loss, outs["loss"], annotations)

    @torch.no_grad()
    def stage(self, index: torch.Tensor, labels: torch.Tensor) -> None:
        """Stage the next labels of all ranks' images in every rank's banks.

        Args:
            index: (B,) image indices of this rank.
            labels: (B, H) labels, a column for each head.
        """
        # (index, labels) in one collective: 8 bytes an image with one head, 12 where indices need
        # 64 bits
        width = 1 if len(self.banks[0]) < 1 << 31 else 2
        kind = torch.int32 if width == 1 else torch.int64
        words = torch.cat([index.to(kind).view(-1, 1).view(torch.int32), labels.int()], 1)
        (words,) = all_rows(words)
        index = words[:, :width].contiguous().view(kind).squeeze(1).long()
        for bank, column in zip(self.banks, words[:, width:].unbind(1), strict=True):
            bank.update(index, column)

    def stage_again(self, index: torch.Tensor) -> None:
        """Stage the present labels of images (B,) again: that says which the epoch has drawn."""
        self.stage(index, torch.stack([bank.targets(index) for bank in self.banks], 1))

    def _loss(self, logits: torch.Tensor, targets: list[torch.Tensor]) -> torch.Tensor:
        """Return the cross-entropy of logits (B, sum of K), averaged over the heads."""
        losses = [
            F.cross_entropy(part / self.options.temperature, target)
            for part, target in zip(self.head.per_head(logits), targets, strict=True)
        ]
        return torch.stack(losses).mean()

    def _is_last_step(self) -> bool:
        """Tell whether the epoch is over, as far as Lightning knows."""
        batches = self.trainer.num_training_batches
        is_last = math.isinf(batches) and self.trainer.is_last_batch  # of a stream
        return bool(self.steps_done >= batches or is_last)

    def _end_epoch(self) -> None:
        """Cross the epoch boundary."""
        started = time.perf_counter()
        self.label_epoch = self._epoch + 1
        if self.plan.boundary_pass:  # which stages labels of images that no step has drawn
            self.telemetry.num_drawn = count_staged(self.banks[0])
        self.relabel()
        self.telemetry.sums = sum_over_ranks(self.telemetry.sums)
        self.epoch_metrics = self.commit()
        self.steps_done = 0
        metrics = {f"uic_{name}": value for name, value in self.epoch_metrics.items()}
        self.log_dict(metrics, on_step=False, on_epoch=True, sync_dist=True)
        self.boundary_seconds = time.perf_counter() - started
