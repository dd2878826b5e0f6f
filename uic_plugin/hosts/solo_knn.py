"""solo-learn's k-NN classifier: as an evaluator, and online, under today's torchmetrics."""

from __future__ import annotations

from typing import Any

import torch
from solo.utils.knn import WeightedKNNClassifier
from torch import nn


def collect_only(method: nn.Module) -> None:
    """Let calls of a method's online k-NN collect features and nothing more.

    The host asks torchmetrics for that with `compute_on_step=False`, which releases since 0.9
    accept and ignore: they compute at each call, which fails while only training features are
    there. Images without an annotation are left out when the accuracy is computed: to leave them
    out of a batch is to wait for the device.
    """
    knn: Any = getattr(method, "knn", None)
    if knn is None:
        return
    knn.forward = knn.update
    compute = knn.compute

    def compute_of_known() -> Any:
        known = [targets != -1 for targets in knn.train_targets]
        for rows in (knn.train_features, knn.train_targets):
            rows[:] = [row[mask] for row, mask in zip(rows, known, strict=True)]
        return compute()

    knn.compute = compute_of_known


def knn_accuracy(
    train: tuple[torch.Tensor, torch.Tensor],
    test: tuple[torch.Tensor, torch.Tensor],
    *,
    k: int,
    temperature: float,
    distance: str,
) -> float:
    """Return top-1 in percent of the host's weighted k-NN classifier, see `protocol.Host`."""
    classifier = WeightedKNNClassifier(k=k, T=temperature, distance_fx=distance)
    classifier.update(
        train_features=train[0],
        train_targets=train[1],
        test_features=test[0],
        test_targets=test[1],
    )
    return float(classifier.compute()[0])
