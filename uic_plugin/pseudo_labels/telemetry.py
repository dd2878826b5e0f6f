"""What an epoch did to the labels, as numbers for a logger.

    telemetry = EpochTelemetry(annotations=None)
    telemetry.observe(logits)                                         # every step
    boundary = bank.commit(fixer, telemetry.compare)
    metrics = telemetry.summary(bank, boundary)

Annotations are read here and nowhere else.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from uic_plugin.pseudo_labels.bank import EpochBoundary, PseudoLabelBank

_BLOCK = 1 << 24  # images handled at once: bounds the memory at any number of images


class EpochTelemetry:
    """Keeps running means over an epoch's assignments, and sums them up at the epoch boundary.

    Args:
        annotations: (N,) integer classes of the images by people, negative where unknown; None
            where the dataset has none.

    Attributes:
        sums: (3,) float64, sums of confidence and entropy and the count of assignments; kept as
            one tensor so that ranks can add theirs with one reduction.
        num_drawn: images that steps have drawn in the epoch, where labels are then staged that do
            not come from its steps; None where all that are staged do.
        class_sizes: (K,) images per class after the last epoch boundary; None before the first.
    """

    def __init__(self, annotations: np.ndarray | None = None) -> None:
        self.annotations = None
        if annotations is not None and (np.asarray(annotations) >= 0).any():
            self.annotations = np.asarray(annotations)
        self.sums = torch.zeros(3, dtype=torch.float64)
        self.nmi_previous = 0.0
        self.num_drawn: int | None = None
        self.class_sizes: np.ndarray | None = None

    def compare(self, previous: torch.Tensor, labels: torch.Tensor) -> None:
        """Take note of how far the labels of two epochs agree, (N,) each."""
        self.nmi_previous = nmi(previous.cpu().numpy(), labels.cpu().numpy())

    @torch.no_grad()
    def observe(self, logits: torch.Tensor) -> None:
        """Add one batch of assignments.

        Args:
            logits: (B, K) logits that the labels were taken from.
        """
        log_p = logits.float().log_softmax(1)
        p = log_p.exp()
        batch = torch.stack([p.amax(1).sum(), -(p * log_p).sum(), p.new_full((), len(p))])
        if batch.device.type == "mps":  # has no float64
            batch = batch.cpu()
        self.sums = self.sums.to(batch.device, non_blocking=True) + batch.double()

    def means(self) -> dict[str, float]:
        """Return mean confidence in [0, 1] and entropy in nats, and start the means anew.

        Without an answer, as in an epoch without a label pass (`label_every`), there are none.
        """
        confidence, entropy, count = self.sums.tolist()
        self.sums = torch.zeros_like(self.sums)
        if not count:
            return {}
        return {"confidence": confidence / count, "entropy": entropy / count}

    def summary(self, bank: PseudoLabelBank, boundary: EpochBoundary) -> dict[str, float]:
        """Return the metrics of the epoch that ended, and start the running means anew.

        Args:
            bank: bank of all images, after its commit.
            boundary: what `bank.commit` returned.

        Returns:
            Metric names and values: shares and confidence in [0, 1], entropy in nats.
        """
        labels = bank.labels.cpu().numpy()
        self.class_sizes = bank.class_sizes().numpy()
        num_drawn = boundary.num_seen if self.num_drawn is None else self.num_drawn
        self.num_drawn = None
        metrics = {
            "nmi_previous": self.nmi_previous,
            "changed": boundary.num_changed / len(bank),
            "coverage": num_drawn / len(bank),
            "empty_fixed": float(boundary.num_splits),
            **size_metrics(self.class_sizes),
            **self.means(),
        }
        if self.annotations is not None:
            table = contingency(self.annotations, labels)  # leaves out what is not annotated
            metrics["nmi"] = nmi_of(table)
            metrics["purity"] = purity_of(table)
            metrics["annotated_classes"] = float((table.sum(1) > 0).sum())
        return metrics


def size_metrics(sizes: np.ndarray) -> dict[str, float]:
    """Return how images spread over the classes, from the images of each class (K,)."""
    return {
        "classes_used": float((sizes > 0).sum()),
        "class_size_min": float(sizes.min()),
        "class_size_median": float(np.median(sizes)),
        "class_size_max": float(sizes.max()),
        "class_size_cv": float(sizes.std() / max(sizes.mean(), 1e-12)),
    }


def nmi(first: np.ndarray, second: np.ndarray, *, average: str = "arithmetic") -> float:
    """Return the normalized mutual information of two assignments, in [0, 1].

    Older papers normalise by the geometric average; the two differ where the assignments have
    different entropies.

    Args:
        first, second: (N,) integer classes.
        average: of the two entropies, "arithmetic" or "geometric".
    """
    return nmi_of(contingency(first, second), average)


def purity(annotations: np.ndarray, labels: np.ndarray) -> float:
    """Return the share of images with their pseudo class's commonest annotation, in (0, 1].

    Args:
        annotations: (N,) classes by people.
        labels: (N,) pseudo classes.
    """
    return purity_of(contingency(annotations, labels))


def contingency(first: np.ndarray, second: np.ndarray) -> Any:
    """Return the images of each pair of classes, a sparse (A, B) matrix.

    Block by block, in memory bounded at any N: scikit-learn's `contingency_matrix` sorts all
    labels and takes copies of 64 bits of them.

    Args:
        first, second: (N,) integer classes; pairs with a negative one are left out.
    """
    from scipy.sparse import coo_matrix, csr_matrix

    shape = (max(int(first.max()), 0) + 1, max(int(second.max()), 0) + 1)
    table = csr_matrix(shape, dtype=np.int64)
    for start in range(0, len(first), _BLOCK):
        one, two = first[start : start + _BLOCK], second[start : start + _BLOCK]
        known = (one >= 0) & (two >= 0)
        pairs = (one[known].astype(np.int32), two[known].astype(np.int32))
        counts = np.ones(len(pairs[0]), np.int64)
        table = table + coo_matrix((counts, pairs), shape).tocsr()
    return table


def nmi_of(table: Any, average: str = "arithmetic") -> float:
    """Return the NMI of a table of pairs; scikit-learn's takes copies of all labels."""
    from scipy.stats import entropy
    from sklearn.metrics import mutual_info_score

    rows, columns = (np.asarray(table.sum(axis)).ravel() for axis in (1, 0))
    if (rows > 0).sum() <= 1 and (columns > 0).sum() <= 1:
        return 1.0
    information = mutual_info_score(None, None, contingency=table)
    if information <= np.finfo(np.float64).eps:
        return 0.0
    pair = (entropy(rows), entropy(columns))
    norm = np.mean(pair) if average == "arithmetic" else np.sqrt(np.prod(pair))
    return float(information / norm)


def purity_of(table: Any) -> float:
    """Return the purity of a table of pairs, annotations in rows."""
    return float(table.max(axis=0).sum() / table.sum())
