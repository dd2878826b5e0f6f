"""The labels that a method keeps: made for a dataset, saved in checkpoints, taken over from them.

A mixin before a host's `BaseMethod`. The host's adapter calls `attach` when it knows the dataset,
and `load_labels` when it resumes.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from uic_plugin.methods.banks import make_banks
from uic_plugin.methods.base import HostMethod, OwnMethod
from uic_plugin.methods.options import PseudoLabelOptions
from uic_plugin.pseudo_labels import (
    EmptyClassFixer,
    EpochTelemetry,
    LabelStore,
    PseudoLabelBank,
)
from uic_plugin.ranks import RankInfo, barrier, sum_over_ranks, world_size
from uic_plugin.seeding import derive_seed

CHECKPOINT_KEY = "uic"
Views = Literal["center", "train"]


@dataclass(frozen=True)
class LabelPlan:
    """Says what a method's options decide about labels, to who makes banks, orders and loaders.

    Attributes:
        initial: how labels begin, independent "random" draws or "balanced" classes.
        first_pass: views of a pass over all images that labels the first epoch; None: no pass.
        boundary_pass: the same for every epoch boundary.
        batch_statistics: whether passes use statistics of their batches; images then come in random
            order. In that of a folder a batch is one of a few annotated classes, which labels and
            running statistics would follow.
        is_balanced: whether every class is drawn equally often.
        fixes_empty_classes: whether an empty class gets half of the largest.
        keeps_labels: whether every image has a label that is kept, so that it needs a number.
    """

    initial: Literal["random", "balanced"] = "random"
    first_pass: Views | None = None
    boundary_pass: Views | None = None
    batch_statistics: bool = False
    is_balanced: bool = True
    fixes_empty_classes: bool = False
    keeps_labels: bool = True


class KeptLabels(OwnMethod, HostMethod):
    """Makes, saves and restores labels, epoch, telemetry and the step within an epoch.

    Attributes:
        banks: one bank of all images for each head; none before the dataset is known.
        fixer: fills empty classes of the first head, or None; see `fixer_of`.
        telemetry: telemetry of the present epoch.
        steps_done: steps of the banks' present epoch. Lightning's own number of the batch does not
            do: version 1 repeats one after a resume from a checkpoint that a callback wrote at the
            end of a batch.
        images_to_skip: images of this rank's order that a resumed run has seen in its first epoch.
    """

    banks: tuple[PseudoLabelBank, ...] = ()
    fixer: EmptyClassFixer | None = None
    telemetry: EpochTelemetry
    seed: int
    steps_done = 0
    images_to_skip = 0
    _resumes_within_epoch = False

    @property
    def plan(self) -> LabelPlan:
        """Return what the options decide about labels."""
        return LabelPlan(is_balanced=self.options.balanced_sampling)

    @property
    def bank(self) -> PseudoLabelBank | None:
        """Return the first head's bank, None before the dataset is known."""
        return self.banks[0] if self.banks else None

    @property
    def label_stores(self) -> tuple[LabelStore, ...]:
        """Return what checkpoints keep of the labels of each head."""
        return self.banks

    def attach(
        self,
        num_samples: int,
        fingerprint: str | None,
        annotations: np.ndarray | None,
        *,
        fixed_labels: torch.Tensor | None = None,
        rank: RankInfo | None = None,
    ) -> None:
        """Make the banks for a dataset; banks of this very dataset are kept.

        Args:
            num_samples: number of images N.
            fingerprint: identifies the list of images.
            annotations: (N,) classes by people for telemetry, or None.
            fixed_labels: (N,) labels in [0, K) that never change, or None.
            rank: this process; by default alone on the CPU.

        Raises:
            ValueError: for fewer images than pseudo classes.
        """
        options, plan = self.options, self.plan
        self.telemetry = EpochTelemetry(annotations)
        fixes = plan.fixes_empty_classes
        self.fixer = EmptyClassFixer(options.num_pseudo_classes) if fixes else None
        if self.bank is not None and self.bank.fingerprint == fingerprint:
            return
        if num_samples < max(options.head_classes):
            raise ValueError(_too_few_images(num_samples, options))
        self.banks = make_banks(
            options,
            num_samples,
            self._head_seeds(),
            rank=rank or RankInfo(),
            init=plan.initial,
            labels=fixed_labels,
            fingerprint=fingerprint,
        )
        if self.fixer is not None:
            for bank in self.banks:
                bank.fix_empty_classes(EmptyClassFixer(bank.num_classes))
        self.wait_for_writers()

    def fixer_of(self, bank: PseudoLabelBank) -> EmptyClassFixer | None:
        """Return what fills the empty classes of one of the heads, or None."""
        return None if self.fixer is None else EmptyClassFixer(bank.num_classes)

    def _head_seeds(self) -> list[int]:
        """Return the seed of each head's labels."""
        heads = range(1, len(self.options.head_classes))
        return [self.seed, *(derive_seed(self.seed, "labels of head", head) for head in heads)]

    @property
    def _epoch(self) -> int:
        """Return the labels' present epoch."""
        if not self.label_stores:
            raise RuntimeError("the pseudo labels are made in setup('fit'), which has not run")
        return self.label_stores[0].epoch

    def take_skip(self) -> int:
        """Return `images_to_skip` to the first order that asks, 0 to the others."""
        skip, self.images_to_skip = self.images_to_skip, 0
        return skip

    def wait_for_writers(self) -> None:
        """Wait until labels that ranks share are written."""
        if any(bank.storage == "mmap" for bank in self.banks):
            barrier()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add labels, epoch and options; on the first rank, which writes the file."""
        super().on_save_checkpoint(checkpoint)
        telemetry = sum_over_ranks(self.telemetry.sums).cpu()  # every rank takes part
        if self.label_stores and self.global_rank == 0:
            first, *others = self.label_stores
            checkpoint[CHECKPOINT_KEY] = {
                "method": self.name,
                "bank": first.state_dict(),
                "more_banks": [store.state_dict() for store in others],
                "options": self.options.as_dict(),
                "steps_done": self.steps_done,
                "batch_size": self.batch_size,
                "world_size": world_size(),
                "telemetry": telemetry.clone(),
            }

    def load_labels(self, state: dict[str, Any] | None, *, is_within_epoch: bool) -> int | None:
        """Take over labels and epoch; without a dataset (evaluation) nothing is taken.

        Args:
            state: what `on_save_checkpoint` added, None if the checkpoint has no such part.
            is_within_epoch: whether the host resumes inside an epoch that it had begun.

        Returns:
            Steps of the present epoch that are done, where the run resumes within it; else None.

        Raises:
            ValueError: if training is to resume from a checkpoint without pseudo labels, or with
                labels of another dataset.
        """
        if not self.label_stores:
            return None
        if state is None:
            raise ValueError(
                "the checkpoint holds no pseudo labels, so another method wrote it: "
                "resume it with that method, or start anew"
            )
        saved = (state["bank"], *state.get("more_banks", ()))
        self._check_heads(saved)
        for store, labels in zip(self.label_stores, saved, strict=True):
            store.load_state_dict(labels)
        self.wait_for_writers()
        # With no step done the labels are past the epoch boundary: written between the epoch's
        # last step and its end, as in a validation, after which the host resumes by itself.
        self._resumes_within_epoch = is_within_epoch and int(state["steps_done"]) > 0
        self.steps_done = 0
        if self._resumes_within_epoch:
            self.steps_done = int(state["steps_done"])
            if state.get("telemetry") is not None:
                is_first = self.global_rank == 0  # the others have nothing to add
                self.telemetry.sums = state["telemetry"].clone() * int(is_first)
        self._fit_steps(state)
        self.images_to_skip = self.steps_done * self.batch_size
        return self.steps_done if self._resumes_within_epoch else None

    def _check_heads(self, saved: Sequence[Mapping[str, Any]]) -> None:
        """Refuse labels of other heads than this run's."""
        there = [labels.get("num_classes") for labels in saved]
        own = list(self.options.head_classes)
        if len(there) != len(own) or (there != own and len(own) > 1):
            raise ValueError(
                f"the checkpoint has labels of heads of {', '.join(map(str, there))} pseudo "
                f"classes, this run has {', '.join(map(str, own))}: set "
                f"method_kwargs.num_pseudo_classes, heads and more_heads as there"
            )

    def _fit_steps(self, state: dict[str, Any]) -> None:
        """Convert the steps done to the present number of ranks and batch size."""
        now = world_size()
        before, batch_before = state.get("world_size", now), state.get("batch_size")
        if before != now:
            warnings.warn(
                f"the checkpoint was written by {before} rank{'s' * (before > 1)}, this run has "
                f"{now}: labels are kept, but images meet in other batches, so that the run no "
                f"longer equals one without the change",
                stacklevel=2,
            )
        together, together_before = self.batch_size * now, (batch_before or 0) * before
        if not self.steps_done or batch_before is None or together == together_before:
            return
        images = self.steps_done * together_before
        batches = len(self.label_stores[0]) // now // self.batch_size
        # Lightning has not counted the batches yet when it hands over a checkpoint
        limit = self.trainer.limit_train_batches
        batches = min(batches, limit) if type(limit) is int else int(batches * limit)
        # the last step is left to do: the epoch boundary is in it
        self.steps_done = max(0, min(images // together, batches - 1))


def _too_few_images(num_samples: int, options: PseudoLabelOptions) -> str:
    """Return what is wrong and every option to change, for fewer images than pseudo classes."""
    ways = []
    if num_samples < options.num_pseudo_classes:
        ways.append(f"method_kwargs.num_pseudo_classes to at most {num_samples}")
    more_heads = options.head_classes[options.heads :]
    fitting = [count for count in more_heads if count <= num_samples]
    if len(fitting) < len(more_heads):
        ways.append(f"method_kwargs.more_heads=[{','.join(map(str, fitting))}]")
    return (
        f"{num_samples} images are fewer than {max(options.head_classes)} pseudo classes: "
        f"set {' and '.join(ways)}"
    )
