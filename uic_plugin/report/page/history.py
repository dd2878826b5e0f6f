"""The history of a run's classes, if it kept snapshots (`uic pretrain ... snapshots=N`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class History:
    """Classes over the epochs of a run.

    Attributes:
        epochs: E epochs, ascending.
        size: (E, K) images of each class at each of them.
        kept: (E, K) share of the class's final images that it had then, in [0, 1]; NaN for a class
            without final images.
    """

    epochs: list[int]
    size: np.ndarray
    kept: np.ndarray

    def as_json(self) -> dict[str, object]:
        """Return the history class by class, with shares of three digits."""
        shares = np.round(np.nan_to_num(self.kept), 3)
        return {
            "epochs": self.epochs,
            "size": self.size.T.tolist(),
            "kept": shares.T.tolist(),
        }


def history_of(epochs: Sequence[int], past: Sequence[np.ndarray], today: np.ndarray) -> History:
    """Compare the labels of earlier epochs with the final ones.

    Args:
        epochs: E epochs, ascending.
        past: E arrays (N,) of labels.
        today: (N,) final labels of the same images.
    """
    num_classes = int(max(int(today.max()), *(int(labels.max()) for labels in past))) + 1
    size = np.stack([np.bincount(labels, minlength=num_classes) for labels in past])
    now = np.bincount(today, minlength=num_classes)
    same = np.stack([np.bincount(today[labels == today], minlength=num_classes) for labels in past])
    with np.errstate(invalid="ignore", divide="ignore"):
        kept = same / now
    return History(list(epochs), size, kept)
