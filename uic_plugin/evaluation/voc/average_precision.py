"""Average precision of PASCAL VOC, for classes in images and for boxes.

There are two kinds: `11-point` is the mean of the interpolated precision at recall 0, 0.1, ..., 1
(VOC 2007); `area` is the area under the interpolated curve (VOC 2010 and later). The interpolated
precision is the highest one at this recall or above.

Source: Everingham et al., 2010, section 4.2, and the development kit of 2012.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.metrics import precision_recall_curve
from torchvision.ops import box_iou

KINDS = ("11-point", "area")


@dataclass(frozen=True)
class AveragePrecision:
    """Average precision of one class, in [0, 1]; NaN if the class has no positives.

    Attributes:
        eleven_point: mean over 11 recalls.
        area: area under the curve.
        positives: number of images or objects of the class.
    """

    eleven_point: float
    area: float
    positives: int


@dataclass(frozen=True)
class Detections:
    """Boxes found in an image.

    Attributes:
        boxes: (D, 4) as `Objects.boxes`.
        labels: (D,) classes.
        scores: (D,) confidences.
    """

    boxes: torch.Tensor
    labels: torch.Tensor
    scores: torch.Tensor


def mean_of(values: Sequence[float]) -> float:
    """Return the mean over the classes that have a value; NaN if none has."""
    found = [value for value in values if not math.isnan(value)]
    return sum(found) / len(found) if found else math.nan


def interpolated(recall: np.ndarray, precision: np.ndarray, positives: int) -> AveragePrecision:
    """Return both kinds of average precision of a curve.

    Args:
        recall: (P,) non-decreasing.
        precision: (P,) at these recalls.
        positives: number of images or objects of the class.
    """
    if not positives:
        return AveragePrecision(math.nan, math.nan, 0)
    if not len(recall):
        return AveragePrecision(0.0, 0.0, positives)
    best = np.maximum.accumulate(precision[::-1])[::-1]
    # rounding differs between ways to compute a recall of 3 / 10
    reached = np.searchsorted(recall, np.linspace(0, 1, 11) - 1e-9)
    eleven = np.append(best, 0.0)[reached].mean()
    area = (np.diff(recall, prepend=0.0) * best).sum()
    return AveragePrecision(float(eleven), float(area), positives)


def classification_precision(
    scores: torch.Tensor, presence: torch.Tensor
) -> list[AveragePrecision]:
    """Return the average precision of each class of a multi-label classification.

    Args:
        scores: (N, C), higher if a class is more likely.
        presence: (N, C) 1 present, 0 absent, NaN left out.

    Raises:
        ValueError: for shapes that differ.
    """
    if scores.shape != presence.shape:
        raise ValueError(f"scores {tuple(scores.shape)}, presence {tuple(presence.shape)}")
    results = []
    for score, truth in zip(scores.T, presence.T, strict=True):
        counted = ~truth.isnan()
        positives = int(truth[counted].sum())
        if not positives:
            results.append(interpolated(np.empty(0), np.empty(0), 0))
            continue
        precision, recall, _ = precision_recall_curve(
            truth[counted].numpy(), score[counted].double().numpy()
        )
        # from the highest score down, without the final point (0, 1), which is no image's
        results.append(interpolated(recall[-2::-1], precision[-2::-1], positives))
    return results


def detection_precision(
    found: Sequence[Detections],
    boxes: Sequence[torch.Tensor],
    labels: Sequence[torch.Tensor],
    difficult: Sequence[torch.Tensor],
    *,
    num_classes: int,
    overlap: float = 0.5,
) -> list[AveragePrecision]:
    """Return the average precision of the boxes of each class.

    A detection is right if the object of its class that it overlaps most has an intersection over
    union of at least `overlap` and no detection of higher confidence matched it. Detections of
    difficult objects are left out.

    Args:
        found: detections of each image.
        boxes: (B, 4) of each image's objects.
        labels: (B,) their classes.
        difficult: (B,) objects that need not be found.
        num_classes: C; classes are 0 to C - 1.
        overlap: minimum intersection over union.
    """
    scores: list[list[float]] = [[] for _ in range(num_classes)]
    right: list[list[bool]] = [[] for _ in range(num_classes)]
    positives = [0] * num_classes
    for detections, corners, classes, skipped in zip(found, boxes, labels, difficult, strict=True):
        for label in range(num_classes):
            mine = classes == label
            positives[label] += int((mine & ~skipped).sum())
            answers = detections.labels == label
            if not bool(answers.any()):
                continue
            order = detections.scores[answers].argsort(descending=True, stable=True)
            overlaps = box_iou(detections.boxes[answers][order], corners[mine])
            hits, counted = _matched(overlaps, skipped[mine], overlap)
            scores[label] += detections.scores[answers][order][counted].tolist()
            right[label] += hits[counted].tolist()
    return [
        _of_ranking(np.asarray(scores[c]), np.asarray(right[c], dtype=bool), positives[c])
        for c in range(num_classes)
    ]


def _matched(
    overlaps: torch.Tensor, difficult: torch.Tensor, least: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return which detections are right, and which count, from (D, B) overlaps by confidence."""
    hits = torch.zeros(len(overlaps), dtype=torch.bool)
    counted = torch.ones(len(overlaps), dtype=torch.bool)
    if not overlaps.shape[1]:
        return hits, counted
    best, which = overlaps.max(1)
    taken: set[int] = set()
    for rank in torch.nonzero(best >= least).flatten().tolist():
        target = int(which[rank])
        if difficult[target]:
            counted[rank] = False
        elif target not in taken:
            taken.add(target)
            hits[rank] = True
    return hits, counted


def _of_ranking(scores: np.ndarray, right: np.ndarray, positives: int) -> AveragePrecision:
    hits = right[np.argsort(-scores, kind="stable")]
    true = np.cumsum(hits)
    return interpolated(true / max(positives, 1), true / np.arange(1, len(hits) + 1), positives)
