"""One training step and one turn of the epoch, for every method that learns from pseudo labels.

A mixin before a host's `BaseMethod`; it knows Lightning's hooks by name and imports neither
Lightning nor the host. A method says how labels are assigned: `assign` from a step's logits, or
`relabel` for all images when the epoch turns.

Source: UIC, section 3.2, Eq. 5 and 6, with t1 and t2 the views of two successive epochs.
"""

from __future__ import annotations

import dataclasses
import math
import time
from typing import Any

import torch
import torch.nn.functional as F

from uic_plugin.methods.bank_place import RankPlace, make_banks
from uic_plugin.methods.kept_labels import KeptLabels
from uic_plugin.methods.options import PseudoLabelOptions
from uic_plugin.methods.ranks import max_over_ranks, world_size
from uic_plugin.networks.heads import PseudoClassHead
from uic_plugin.pseudo_labels import EmptyClassFixer, EpochTelemetry, PseudoLabelBank
from uic_plugin.pseudo_labels.bank import Turn
from uic_plugin.seeding import derive_seed


class PseudoLabelMethod(KeptLabels):
    """Shared by all pseudo-label methods on both lines of the host.

    An adapter calls `attach` when it knows the dataset, and provides `_network`, the backbone.

    Attributes:
        labels_each_step: whether a step's own logits give its images their next labels.
    """

    labels_each_step = True

    seed: int
    fixer: EmptyClassFixer | None = None
    # batches [index, views, ...] of this rank's share of all images, for labels of their own pass
    label_loader: Any = None
    has_fixed_labels = False
    epoch_metrics: dict[str, float] | None = None
    label_epoch = 0  # that labels of a pass of their own are for
    begin_seconds = 0.0  # of the labels of the first epoch
    turn_seconds = 0.0  # of the last turn of the epoch, labels of their own pass included

    @property
    def label_pass(self) -> str | None:
        """Views that labels of their own pass come from: "center", "train", or None: no pass."""
        return None

    @property
    def first_pass(self) -> str | None:
        """The same for the labels of the first epoch."""
        return self.label_pass

    @property
    def is_streaming(self) -> bool:
        """Whether labels are those of the step, and no image has to be known by its number."""
        return False

    @property
    def is_balanced(self) -> bool:
        """Whether every class is drawn equally often."""
        return bool(self.options.balanced_sampling)

    @property
    def fixes_empty_classes(self) -> bool:
        """Whether an empty class gets half of the largest."""
        return False

    @property
    def initial_labels(self) -> str:
        """How labels begin, "random" or "balanced"."""
        return "random"

    def build_head(self, features_dim: int, options: PseudoLabelOptions, seed: int) -> None:
        """Add the pseudo-class head; its weights depend on the seed alone.

        Not on the width of the host's online classifier, which is built before it and differs
        with and without annotations.
        """
        self.options = options
        self.seed = seed
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(seed, "head"))
            self.head = PseudoClassHead(
                features_dim,
                options.num_pseudo_classes,
                mlp_layers=options.head_layers if options.head == "mlp" else 0,
                mlp_width=options.head_width,
                batch_norm=options.head_batch_norm,
                cosine=options.classifier == "cosine",
                heads=options.heads,
            )

    def attach(
        self,
        num_samples: int,
        fingerprint: str | None,
        annotations: Any,
        *,
        fixed_labels: torch.Tensor | None = None,
        rank: RankPlace | None = None,
    ) -> None:
        """Make the bank for a dataset; a bank of this very dataset is kept.

        Args:
            num_samples: number of images N.
            fingerprint: identifies the list of images.
            annotations: (N,) classes by people for telemetry, or None.
            fixed_labels: (N,) labels in [0, K) that never change, or None.
            rank: where this process is; alone on the CPU unless told.

        Raises:
            ValueError: for fewer images than pseudo classes.
        """
        options = self.options
        self.telemetry = self.make_telemetry(annotations)
        self.has_fixed_labels = fixed_labels is not None
        fixes = self.fixes_empty_classes and not self.has_fixed_labels
        self.fixer = EmptyClassFixer(options.num_pseudo_classes) if fixes else None
        if self.bank is not None and (self.is_streaming or self.bank.fingerprint == fingerprint):
            return
        if num_samples < options.num_pseudo_classes and not self.is_streaming:
            raise ValueError(
                f"{num_samples} images are fewer than {options.num_pseudo_classes} pseudo classes: "
                f"set method_kwargs.num_pseudo_classes to at most {num_samples}"
            )
        seeds = [derive_seed(self.seed, "labels of head", h) for h in range(1, options.heads)]
        self.bank, *more = self.make_banks(
            num_samples,
            [self.seed, *seeds],
            rank=rank or RankPlace(),
            init=self.initial_labels,
            labels=fixed_labels,
            fingerprint=fingerprint,
        )
        self.more_banks = tuple(more)
        if self.fixer is not None:
            for bank in self.banks:
                bank.fix_empty_classes(self.fixer)
        self.wait_for_writers()

    def make_telemetry(self, annotations: Any) -> EpochTelemetry:
        """For annotations (N,), or None where there are none."""
        return EpochTelemetry(annotations)

    def make_banks(
        self, num_samples: int, seeds: list[int], **bank: Any
    ) -> tuple[PseudoLabelBank, ...]:
        """One bank a seed, see `bank_place.make_banks`."""
        return make_banks(self.options, num_samples, seeds, **bank)

    def assign(self, logits: torch.Tensor) -> torch.Tensor:
        """Labels (B,) for the next epoch from this step's logits (B, K)."""
        raise NotImplementedError

    def relabel(self) -> None:
        """Stage labels of all images for the next epoch, where that takes a pass of its own."""

    def relabelled(self) -> None:
        """What the ranks have to agree on before the epoch turns."""

    def begin_labels(self) -> None:
        """Set the labels of the first epoch, where they come from the untrained network."""

    def begin_epoch(self) -> None:
        """What a method does before the first step of an epoch."""

    def label_logits(self, view: torch.Tensor) -> torch.Tensor | None:
        """Logits (B, H * K) that labels come from; None: those that the loss compares.

        Args:
            view: (B, C, H, W), the first of each image.
        """
        return None

    def forward(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """The host's outputs, with `z` (B, D) and `pseudo_logits` (B, H * K) beside them."""
        out = super().forward(*args, **kwargs)
        out["z"], out["pseudo_logits"] = self.head(out["feats"])
        return out

    def on_train_epoch_start(self) -> None:
        """Count the epoch's steps from 0, or from where a resumed run stopped."""
        super().on_train_epoch_start()
        if not self._goes_on_within_epoch:
            self.steps_done = 0
        self._goes_on_within_epoch = False

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        """Cross-entropy against this epoch's labels, plus the host's online classifier.

        Args:
            batch: [index (B,), views, annotations (B,)]; `views` is a list of (B, C, H, W).
            batch_idx: number of the batch within the epoch.
        """
        index, views, annotations = batch
        views = [views] if isinstance(views, torch.Tensor) else list(views)
        if len(views) < self.options.views:
            raise ValueError(
                f"views={self.options.views} needs as many crops of each image, the augmentation "
                f"makes {len(views)}: raise augmentations.0.num_crops"
            )
        # The step's own draws (dropout) come from (seed, epoch, rank, step): a resume repeats them.
        torch.manual_seed(
            derive_seed(self.seed, "step", self._bank.epoch, self.global_rank, self.steps_done)
        )
        if self.steps_done == 0:
            self.begin_epoch()
        label_logits = self.label_logits(views[0])
        train_view = views[self.options.views - 1]

        outs = super().training_step([index, [train_view], annotations], batch_idx)
        # main's step goes through `forward`, which has called the head; pypi's does not
        if "pseudo_logits" in outs:
            logits = outs["pseudo_logits"][0]
        else:
            logits = self.head(outs["feats"][0])[1]
        targets = self.targets(index, label_logits, annotations)
        loss = self._loss(logits, targets)
        if self.labels_each_step and self.label_pass is None and not self.is_streaming:
            self.stage(index, logits.detach() if label_logits is None else label_logits)
        elif (self.is_streaming or not self.labels_each_step) and self.telemetry is not None:
            answers = logits.detach() if label_logits is None else label_logits
            self.telemetry.observe(self.head.per_head(answers)[0])
        self.log(
            f"train_{self.name}_loss", loss.detach(), on_epoch=True, sync_dist=True, prog_bar=True
        )
        self.steps_done += 1
        # Turn here rather than in a later hook: checkpoint callbacks run before those, and what
        # they save has to hold the new labels already.
        trainer = self.trainer
        is_endless = math.isinf(trainer.num_training_batches)  # as far as Lightning knows
        if self.steps_done >= trainer.num_training_batches or (
            is_endless and trainer.is_last_batch
        ):
            self._turn_epoch()
        return self.with_online_loss(loss, outs["loss"], annotations)

    def targets(
        self, index: torch.Tensor, label_logits: torch.Tensor | None, annotations: torch.Tensor
    ) -> list[torch.Tensor]:
        """Labels (B,) of each head that the loss compares with; of the banks.

        Args:
            index: (B,) image indices.
            label_logits: (B, H * K), see `label_logits`.
            annotations: (B,) classes by people, for telemetry alone.
        """
        return [bank.targets(index) for bank in self.banks]

    def _loss(self, logits: torch.Tensor, targets: list[torch.Tensor]) -> torch.Tensor:
        """Cross-entropy of logits (B, H * K) against the labels of their heads, averaged."""
        losses = [
            F.cross_entropy(part / self.options.temperature, target)
            for part, target in zip(self.head.per_head(logits), targets, strict=True)
        ]
        return torch.stack(losses).mean()

    @torch.no_grad()
    def stage(self, index: torch.Tensor, logits: torch.Tensor) -> None:
        """Write the next labels of all ranks' images into every rank's bank."""
        if self.telemetry is not None:
            self.telemetry.observe(self.head.per_head(logits)[0])
        if self.has_fixed_labels:
            labels = [self._bank.targets(index)]
        else:
            labels = [self.assign(part) for part in self.head.per_head(logits)]
        self.share_labels(index, torch.stack(labels, 1))

    @torch.no_grad()
    def share_labels(self, index: torch.Tensor, labels: torch.Tensor) -> None:
        """Stage labels (B, H) of images (B,), and those of the other ranks."""
        if world_size() > 1:
            # (index, labels) in one collective: 8 bytes an image with one head, 12 where indices
            # need 64 bits
            width = 1 if len(self._bank) < 1 << 31 else 2
            kind = torch.int32 if width == 1 else torch.int64
            words = torch.cat([index.to(kind).view(-1, 1).view(torch.int32), labels.int()], 1)
            gathered = [torch.empty_like(words) for _ in range(world_size())]
            torch.distributed.all_gather(gathered, words)
            words = torch.cat(gathered)
            index = words[:, :width].contiguous().view(kind).squeeze(1).long()
            labels = words[:, width:]
        for bank, column in zip(self.banks, labels.unbind(1), strict=True):
            bank.update(index, column)

    def _turn_epoch(self) -> None:
        started = time.perf_counter()
        self.label_epoch = self._bank.epoch + 1
        self.relabel()
        self.relabelled()
        telemetry = self.telemetry
        turn = self._commit(self._bank, telemetry)
        for other in self.more_banks:
            self._commit(other)
        self.steps_done = 0
        if telemetry is not None:
            if world_size() > 1:
                torch.distributed.all_reduce(telemetry.sums)
            self.epoch_metrics = telemetry.summary(self._bank, turn)
            self.log_dict(
                {f"uic_{name}": value for name, value in self.epoch_metrics.items()},
                on_step=False,
                on_epoch=True,
                sync_dist=True,
            )
        self.turn_seconds = time.perf_counter() - started

    def _commit(self, bank: PseudoLabelBank, telemetry: EpochTelemetry | None = None) -> Turn:
        """Turn the epoch of a bank; of shared labels, once they are written."""
        turn = None
        if bank.is_writer:
            turn = bank.commit(self.fixer, telemetry.compare if telemetry is not None else None)
        if bank.storage != "mmap":
            return turn  # type: ignore[return-value]  # every rank writes its own
        numbers = torch.zeros(5, dtype=torch.float64)
        if turn is not None:
            agreement = telemetry.nmi_previous if telemetry is not None else 0.0
            numbers = torch.tensor([*dataclasses.astuple(turn), agreement], dtype=torch.float64)
        numbers = max_over_ranks(numbers)
        turn = Turn(*(int(number) for number in numbers[:4]))
        if not bank.is_writer:
            bank.follow(turn)
        if telemetry is not None:
            telemetry.nmi_previous = float(numbers[4])
        return turn

    @property
    def _bank(self) -> PseudoLabelBank:
        if self.bank is None:
            raise RuntimeError("the pseudo labels are made in setup('fit'), which has not run")
        return self.bank
