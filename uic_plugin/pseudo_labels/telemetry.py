"""What an epoch did to the labels, as numbers for a logger.

    telemetry = EpochTelemetry(annotations=None)
    telemetry.observe(logits)                       # every step
    previous = bank.labels.clone()
    metrics = telemetry.summary(bank, bank.commit(fixer), previous)

Annotations are read here and nowhere else.
"""

from __future__ import annotations

import numpy as np
import torch

from uic_plugin.pseudo_labels.bank import PseudoLabelBank, Turn


class EpochTelemetry:
    """Running means over an epoch's assignments, and a summary when the epoch turns.

    Args:
        annotations: (N,) integer classes of the images by people, negative where unknown; None
            where the dataset has none.

    Attributes:
        sums: (3,) float64, sums of confidence and entropy and the count of assignments; kept as
            one tensor so that ranks can add theirs with one reduction.
    """

    def __init__(self, annotations: np.ndarray | None = None) -> None:
        self.annotations = None
        if annotations is not None and (np.asarray(annotations) >= 0).any():
            self.annotations = np.asarray(annotations)
        self.sums = torch.zeros(3, dtype=torch.float64)

    @torch.no_grad()
    def observe(self, logits: torch.Tensor) -> None:
        """Add one batch of assignments.

        Args:
            logits: (B, K) logits that the labels were taken from.
        """
        log_p = logits.float().log_softmax(1)
        p = log_p.exp()
        batch = torch.stack([p.amax(1).sum(), -(p * log_p).sum(), p.new_tensor(len(p))])
        if batch.device.type == "mps":  # has no float64
            batch = batch.cpu()
        self.sums = self.sums.to(batch.device) + batch.double()

    def summary(
        self, bank: PseudoLabelBank, turn: Turn, previous: torch.Tensor
    ) -> dict[str, float]:
        """The metrics of the epoch that ended; starts the running means anew.

        Args:
            bank: after its turn.
            turn: what `bank.commit` returned.
            previous: (N,) labels before the turn.

        Returns:
            Metric names and values: shares and confidence in [0, 1], entropy in nats.
        """
        confidence, entropy, count = self.sums.tolist()
        self.sums = torch.zeros_like(self.sums)
        labels = bank.labels.cpu().numpy()
        sizes = bank.class_sizes().numpy()
        metrics = {
            "nmi_previous": nmi(previous.cpu().numpy(), labels),
            "changed": turn.num_changed / len(bank),
            "coverage": turn.num_seen / len(bank),
            "empty_fixed": float(turn.num_splits),
            "classes_used": float((sizes > 0).sum()),
            "class_size_min": float(sizes.min()),
            "class_size_median": float(np.median(sizes)),
            "class_size_max": float(sizes.max()),
            "class_size_cv": float(sizes.std() / sizes.mean()),
            "confidence": confidence / max(count, 1.0),
            "entropy": entropy / max(count, 1.0),
        }
        if self.annotations is not None:
            known = self.annotations >= 0
            annotated, assigned = self.annotations[known], labels[known]
            metrics["nmi"] = nmi(annotated, assigned)
            metrics["purity"] = purity(annotated, assigned)
            metrics["annotated_classes"] = float(len(np.unique(annotated)))
        return metrics


def nmi(first: np.ndarray, second: np.ndarray, *, average: str = "arithmetic") -> float:
    """Normalized mutual information of two assignments, in [0, 1].

    Older papers normalise by the geometric average; the two differ where the assignments have
    different entropies.

    Args:
        first, second: (N,) integer classes.
        average: of the two entropies, "arithmetic" or "geometric".
    """
    from sklearn.metrics import normalized_mutual_info_score

    return float(normalized_mutual_info_score(first, second, average_method=average))


def purity(annotations: np.ndarray, labels: np.ndarray) -> float:
    """Share of images whose annotation is the commonest one of their pseudo class, in (0, 1].

    Args:
        annotations: (N,) classes by people.
        labels: (N,) pseudo classes.
    """
    from sklearn.metrics.cluster import contingency_matrix

    table = contingency_matrix(annotations, labels, sparse=True)
    return float(table.max(axis=0).sum() / table.sum())
