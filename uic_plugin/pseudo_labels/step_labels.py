"""Labels of the very step, for images that are seen once: nothing is kept of an image.

    labels = StepLabels(num_samples, num_classes=3000)
    target = labels.assign(logits_of_the_first_view)     # for the loss on the second view

Source: UIC, Eq. 7, which merges labelling and learning into one step. Balance by a running mean of
the classifier's answers is ours, after the distribution alignment of semi-supervised learning
(Berthelot et al., ReMixMatch, 2020, section 3.1): the paper's balanced order needs labels of all
images.
"""

from __future__ import annotations

from typing import Any

import torch

from uic_plugin.pseudo_labels.telemetry import nmi_of, purity_of


class StepLabels:
    """Labels of each batch as it passes by, and how often each class has been the answer.

    Args:
        num_samples: images of an epoch N; 0 where nobody knows.
        num_classes: number of pseudo classes K.
        seed: seed of the run.
        window: steps that the running mean of answers goes back.

    Attributes:
        epoch: number of the present epoch; the first is 0.
        running: (3, K) means over the last steps of each class's log probability, of its variance,
            and of the class's share of the labels: the running prior.
        counts: (K,) int64 labels given in this epoch, on the device of the logits.
    """

    def __init__(
        self, num_samples: int, num_classes: int, *, seed: int = 0, window: int = 10
    ) -> None:
        self.num_samples, self.num_classes = num_samples, num_classes
        self.epoch, self.seed, self.window = 0, seed, window
        self.running = torch.full((3, num_classes), 1 / num_classes)
        self._has_begun = False
        self.counts = torch.zeros(num_classes, dtype=torch.int64)

    def __len__(self) -> int:
        return self.num_samples

    @torch.no_grad()
    def assign(self, logits: torch.Tensor) -> torch.Tensor:
        """Label each image of a batch with the class whose answer is furthest above its usual one.

        An answer counts in standard deviations, so that differences between images decide however
        far one class is ahead in all of them; a class that was a label too often has to be further
        ahead.

        Args:
            logits: (B, K) logits of the views that label.

        Returns:
            (B,) int64 labels.
        """
        log_p = logits.float().log_softmax(1)
        mean = log_p.mean(0)
        variance = (log_p - mean).square().mean(0)
        if not self._has_begun:
            share = self.running[2].to(mean, non_blocking=True)
            self.running = torch.stack([mean, variance, share])
            self._has_begun = True
        self.running = self.running.to(mean, non_blocking=True)
        usual, spread, share = self.running
        scores = (log_p - usual) / spread.sqrt().clamp_min(1e-6)
        scores -= (share * self.num_classes).clamp_min(1e-3).log()
        labels = scores.argmax(1)
        # no bincount, which waits for the largest label
        counts = labels.new_zeros(self.num_classes)
        counts.scatter_add_(0, labels, torch.ones_like(labels))
        now = torch.stack([mean, variance, counts / len(labels)])
        self.running = self.running.lerp(now, 1 / self.window)
        self.counts = self.counts.to(labels.device, non_blocking=True) + counts
        return labels

    def class_sizes(self) -> torch.Tensor:
        """Return the labels given in this epoch to each class, (K,) int64."""
        return self.counts.cpu()

    def commit(self) -> None:
        """Begin the next epoch; the running means stay."""
        self.epoch += 1

    def start_counts(self) -> None:
        """Count the labels of an epoch from 0."""
        self.counts = torch.zeros_like(self.counts)

    def state_dict(self) -> dict[str, Any]:
        """Return the epoch and a copy of the running means."""
        return {
            "epoch": self.epoch,
            "seed": self.seed,
            "has_begun": self._has_begun,
            "running": self.running.cpu().clone(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over epoch and running means; the images may be others.

        Raises:
            ValueError: for another number of classes, or no such state.
        """
        running = state.get("running")
        if not isinstance(running, torch.Tensor):
            raise ValueError("the checkpoint was not trained with method_kwargs.label_source=step")
        if running.shape != self.running.shape:
            raise ValueError(
                f"the checkpoint has {running.shape[-1]} pseudo classes, this run has "
                f"{self.num_classes}: set method_kwargs.num_pseudo_classes={running.shape[-1]}"
            )
        if not bool(torch.isfinite(running).all()) or type(state.get("epoch")) is not int:
            raise ValueError("the saved running means or epoch are no such numbers")
        self.running = running.clone()
        self.epoch, self._has_begun = state["epoch"], bool(state.get("has_begun", True))


class StepTelemetry:
    """Counts labels and annotations in pairs as they pass by, and says how far they agree.

    Args:
        num_classes: number of pseudo classes K.
        num_annotated: number of classes by people A.

    Attributes:
        table: (A + 1, K) int64 images of each annotated and each pseudo class, on the device of the
            labels; in the last row those without an annotation.
    """

    def __init__(self, num_classes: int, num_annotated: int) -> None:
        self.table = torch.zeros(num_annotated + 1, num_classes, dtype=torch.int64)

    def note(self, labels: torch.Tensor, annotations: torch.Tensor) -> None:
        """Count a batch's labels and annotations, (B,) each; annotations below 0 are unknown."""
        self.table = self.table.to(labels.device, non_blocking=True)
        rows, columns = self.table.shape
        row = torch.where(annotations < 0, rows - 1, annotations.clamp(max=rows - 1))
        self.table.view(-1).scatter_add_(0, row * columns + labels, torch.ones_like(labels))

    def summary(self) -> dict[str, float]:
        """Return NMI and purity in [0, 1], nothing without annotations, and count from 0."""
        metrics = {}
        known = self.table[:-1].cpu().numpy()
        if known.any():
            from scipy.sparse import csr_matrix

            table = csr_matrix(known)
            metrics = {"nmi": nmi_of(table), "purity": purity_of(table)}
        self.table = torch.zeros_like(self.table)
        return metrics
