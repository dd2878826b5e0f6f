"""`label_source=step`: UIC for images that are seen once, with the labels of the very step.

Source: UIC, Eq. 7; balance by a running mean of the answers is ours, see `StepLabels`.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import torch

from uic_plugin.methods.kept_labels import LabelPlan
from uic_plugin.methods.uic import UIC
from uic_plugin.pseudo_labels import (
    EpochTelemetry,
    LabelStore,
    StepLabels,
    StepTelemetry,
)
from uic_plugin.pseudo_labels.telemetry import size_metrics
from uic_plugin.ranks import RankInfo, sum_over_ranks, world_size


class StepLabelled(UIC):
    """Labels of a second view in the same step, nothing kept of an image.

    It replaces the banks and their order by `StepLabels`, and with them `attach`, `targets`,
    `label_images` and `commit`.

    Attributes:
        step_labels: one for each head; none without the option.
        agreement: of the first head's labels with the annotations.
    """

    step_labels: tuple[StepLabels, ...] = ()
    agreement: StepTelemetry

    @property
    def _is_of_step(self) -> bool:
        return bool(self.options.label_source == "step")

    @property
    def plan(self) -> LabelPlan:
        """Keep nothing of an image, so that no order and no fixer can depend on it."""
        plan = super().plan
        if not self._is_of_step:
            return plan
        return dataclasses.replace(
            plan, is_balanced=False, fixes_empty_classes=False, keeps_labels=False
        )

    @property
    def label_stores(self) -> tuple[LabelStore, ...]:
        """Return what checkpoints keep: running means in place of labels."""
        return self.step_labels if self._is_of_step else super().label_stores

    def attach(
        self,
        num_samples: int,
        fingerprint: str | None,
        annotations: np.ndarray | None,
        *,
        fixed_labels: torch.Tensor | None = None,
        rank: RankInfo | None = None,
    ) -> None:
        """Begin running means, of as many images as may come; those that there are stay."""
        if not self._is_of_step:
            super().attach(
                num_samples, fingerprint, annotations, fixed_labels=fixed_labels, rank=rank
            )
            return
        classes, window = self.options.head_classes, self.options.prior_window
        self.telemetry = EpochTelemetry()
        self.agreement = StepTelemetry(classes[0], self.num_classes)
        if not self.step_labels:
            self.step_labels = tuple(
                StepLabels(num_samples, own, seed=seed, window=window)
                for own, seed in zip(classes, self._head_seeds(), strict=True)
            )

    def targets(
        self, index: torch.Tensor, label_logits: torch.Tensor, annotations: torch.Tensor
    ) -> list[torch.Tensor]:
        """Return the labels of this step's first views."""
        if not self._is_of_step:
            return super().targets(index, label_logits, annotations)
        parts = self.head.per_head(label_logits)
        labels = [own.assign(part) for own, part in zip(self.step_labels, parts, strict=True)]
        self.agreement.note(labels[0], annotations)
        return labels

    def label_images(self, index: torch.Tensor, logits: torch.Tensor) -> None:
        """Take note of the answers for telemetry alone."""
        if not self._is_of_step:
            super().label_images(index, logits)
            return
        self.observe(logits)

    def commit(self) -> dict[str, float]:
        """Bring the ranks' running means and counts together, and return the epoch's metrics."""
        if not self._is_of_step:
            return super().commit()
        agreement = self.agreement
        agreement.table = sum_over_ranks(agreement.table)
        for own in self.step_labels:
            own.running = sum_over_ranks(own.running) / world_size()
            own.counts = sum_over_ranks(own.counts)
            own.commit()
        first = self.step_labels[0]
        sizes = self.telemetry.class_sizes = first.class_sizes().numpy()
        first.start_counts()
        return {**size_metrics(sizes), **self.telemetry.means(), **agreement.summary()}
