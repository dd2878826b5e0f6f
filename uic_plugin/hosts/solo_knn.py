"""solo-learn's k-NN classifier: as an evaluator, and online, under today's torchmetrics."""

from __future__ import annotations

import torch
from solo.utils.knn import WeightedKNNClassifier
from torch import nn


def collect_only(method: nn.Module) -> None:
    """Let calls of a method's online k-NN collect features and nothing more.

    The host asks torchmetrics for that with `compute_on_step=False`, which releases since 0.9
    accept and ignore: they compute at each call, which fails while only training features are
    there.
    """
    knn = getattr(method, "knn", None)
    if knn is not None:
        knn.forward = knn.update


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
