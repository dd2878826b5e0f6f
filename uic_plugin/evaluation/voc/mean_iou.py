"""Mean intersection over union of masks, from one confusion matrix over all images.

Source: Everingham et al., 2010, section 4.3; Long et al., FCN, 2015, section 5.
"""

from __future__ import annotations

import torch

from uic_plugin.data.voc_folder import IGNORED


class ConfusionMatrix:
    """Counts pixels by true and by predicted class.

    Args:
        num_classes: C; classes are 0 to C - 1.

    Attributes:
        counts: (C, C) int64, [true class, predicted class].
    """

    def __init__(self, num_classes: int) -> None:
        self.counts = torch.zeros(num_classes, num_classes, dtype=torch.int64)

    def add(self, truth: torch.Tensor, predicted: torch.Tensor) -> None:
        """Count the pixels of an image, except those of value 255 in `truth`.

        Args:
            truth: (H, W) classes.
            predicted: (H, W) classes.

        Raises:
            ValueError: for masks of different sizes.
        """
        if truth.shape != predicted.shape:
            raise ValueError(f"masks of {tuple(truth.shape)} and {tuple(predicted.shape)} pixels")
        size = len(self.counts)
        counted = truth != IGNORED
        pairs = truth[counted].long() * size + predicted[counted].long()
        self.counts += torch.bincount(pairs, minlength=size * size).view(size, size)

    def iou(self) -> torch.Tensor:
        """Return each class's IoU, (C,) float64; NaN if it is neither present nor predicted."""
        right = self.counts.diag().double()
        return right / (self.counts.sum(0) + self.counts.sum(1) - right)

    def mean_iou(self) -> float:
        """Return the mean over the classes that have an IoU."""
        return float(self.iou().nanmean())
