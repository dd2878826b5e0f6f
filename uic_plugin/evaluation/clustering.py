"""Agreement of pseudo labels with annotations, and statistics of the classes.

The measures are scikit-learn's and SciPy's. Source: UIC, section 4.2 (NMI, Fig. 3 and Fig. 4).
"""

from __future__ import annotations

import numpy as np

from uic_plugin.pseudo_labels.telemetry import nmi, purity


def agreement(annotations: np.ndarray, labels: np.ndarray, num_classes: int) -> dict[str, float]:
    """Return how well pseudo labels agree with annotations.

    Args:
        annotations: (N,) annotated integer classes.
        labels: (N,) pseudo labels in [0, K).
        num_classes: K.

    Returns:
        `nmi_arithmetic` and `nmi_geometric` in [0, 1], `adjusted_rand` in [-0.5, 1], `purity` in
        (0, 1], and, if K equals the number of annotated classes, `hungarian_accuracy` in [0, 1]:
        the share of images that the best one-to-one mapping of pseudo classes gets right.

    Raises:
        ValueError: for arrays of different lengths, or empty ones.
    """
    annotations, labels = np.asarray(annotations), np.asarray(labels)
    if annotations.shape != labels.shape or not len(labels):
        raise ValueError(
            f"annotations and labels must be of the same images, got {annotations.shape} and "
            f"{labels.shape}"
        )
    from sklearn.metrics import adjusted_rand_score

    numbers = {
        "nmi_arithmetic": nmi(annotations, labels),
        "nmi_geometric": nmi(annotations, labels, average="geometric"),
        "adjusted_rand": float(adjusted_rand_score(annotations, labels)),
        "purity": purity(annotations, labels),
    }
    if len(np.unique(annotations)) == num_classes:
        numbers["hungarian_accuracy"] = hungarian_accuracy(annotations, labels)
    return numbers


def hungarian_accuracy(annotations: np.ndarray, labels: np.ndarray) -> float:
    """Return the share of images that the best one-to-one mapping gets right, in [0, 1]."""
    table, matched = _matched(annotations, labels)
    return float(matched.sum() / table.sum())


def mean_class_accuracy(annotations: np.ndarray, labels: np.ndarray) -> float:
    """Return the accuracy of that mapping, averaged over annotated classes, in [0, 1]."""
    table, matched = _matched(annotations, labels)
    return float((matched / table.sum(1)).mean())


def _matched(annotations: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the contingency table, and each row's entry in the best one-to-one mapping."""
    from scipy.optimize import linear_sum_assignment
    from sklearn.metrics.cluster import contingency_matrix

    table = contingency_matrix(annotations, labels)
    rows, columns = linear_sum_assignment(-table)
    matched = np.zeros(len(table))
    matched[rows] = table[rows, columns]
    return table, matched


def class_statistics(
    labels: np.ndarray, confidence: np.ndarray, entropy: np.ndarray, num_classes: int
) -> dict[str, np.ndarray]:
    """Return each class's size, mean confidence and mean entropy in nats; NaN if it is empty.

    Args:
        labels, confidence, entropy: (N,) of each image.
        num_classes: K.

    Returns:
        Columns `size`, `confidence`, `entropy`, each (K,).
    """
    sizes = np.bincount(labels, minlength=num_classes)
    with np.errstate(invalid="ignore", divide="ignore"):
        return {
            "size": sizes,
            "confidence": np.bincount(labels, confidence, num_classes) / sizes,
            "entropy": np.bincount(labels, entropy, num_classes) / sizes,
        }
