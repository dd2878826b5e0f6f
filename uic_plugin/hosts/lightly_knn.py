"""lightly's k-NN: as an evaluator, and online for `uic pretrain`."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from lightly.utils.benchmarking import knn_predict

from uic_plugin.ranks import all_rows

_CHUNK = 1024  # test images whose neighbors are looked for at once
_COLDEST = 0.012  # exp(1 / temperature) is finite in float32


def knn_accuracy(
    train: tuple[torch.Tensor, torch.Tensor],
    test: tuple[torch.Tensor, torch.Tensor],
    *,
    k: int,
    temperature: float,
    distance: str,
) -> float:
    """Return top-1 in percent of lightly's weighted k-NN, see `protocol.Host`.

    Raises:
        ValueError: for a distance that lightly does not have, or a temperature at which its votes
            are infinite.
    """
    if distance != "cosine":
        raise ValueError(
            f"knn.distance={distance} needs solo-learn: lightly's k-NN knows cosine alone"
        )
    if temperature < _COLDEST:
        raise ValueError(
            f"knn.temperature={temperature} is too low for lightly's k-NN, whose votes become "
            f"infinite: set it to at least {_COLDEST}"
        )
    bank, labels = train[0].t().contiguous(), train[1]
    classes = int(max(train[1].max(), test[1].max())) + 1
    correct = torch.zeros((), dtype=torch.int64)
    for features, targets in zip(test[0].split(_CHUNK), test[1].split(_CHUNK), strict=True):
        ranked = knn_predict(
            features,
            bank,
            labels,
            num_classes=classes,
            knn_k=min(k, len(labels)),
            knn_t=temperature,
        )
        correct += (ranked[:, 0] == targets).sum().cpu()
    return 100 * float(correct) / len(test[1])


class OnlineKNN:
    """Collects features of an epoch's training steps and of test images, without a wait.

    Args:
        k, temperature: of the k-NN.
    """

    def __init__(self, k: int, temperature: float) -> None:
        self.k, self.temperature = k, temperature
        self.forget()

    def forget(self) -> None:
        """Begin anew."""
        self._train: list[tuple[torch.Tensor, torch.Tensor]] = []
        self._test: list[tuple[torch.Tensor, torch.Tensor]] = []

    def __call__(
        self,
        train_features: torch.Tensor | None = None,
        train_targets: torch.Tensor | None = None,
        test_features: torch.Tensor | None = None,
        test_targets: torch.Tensor | None = None,
    ) -> None:
        """Keep features (B, D) and annotations (B,), -1 for none, of either kind."""
        for kept, features, targets in (
            (self._train, train_features, train_targets),
            (self._test, test_features, test_targets),
        ):
            if features is not None and targets is not None:
                kept.append((F.normalize(features.detach(), dim=1), targets))

    def accuracy(self) -> float | None:
        """Return top-1 in percent, None without annotated images of both kinds."""
        train, test = self._rows(self._train), self._rows(self._test)
        self.forget()
        if train is None or test is None:
            return None
        return knn_accuracy(train, test, k=self.k, temperature=self.temperature, distance="cosine")

    def _rows(
        self, kept: list[tuple[torch.Tensor, torch.Tensor]]
    ) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Return the annotated ones of all ranks, or None."""
        if not kept:
            return None
        features, targets = all_rows(*(torch.cat(parts) for parts in zip(*kept, strict=True)))
        known = targets >= 0
        return (features[known], targets[known]) if bool(known.any()) else None
