"""Results of a task as rows of a table and as a file; figures in percent."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from uic_plugin.data.voc_folder import VOC_CLASSES, VocObjects
from uic_plugin.evaluation.voc.average_precision import AveragePrecision, Detections, mean_of
from uic_plugin.evaluation.voc.mean_iou import ConfusionMatrix
from uic_plugin.files import replacing

MEAN = "mean"
Row = dict[str, str | int | float]


def precision_rows(precision: Sequence[AveragePrecision]) -> list[Row]:
    """Return a row per class and one of the mean over those that have a value."""
    rows: list[Row] = [
        {
            "class": name,
            "AP_11point": percent(value.eleven_point),
            "AP_area": percent(value.area),
            "objects": value.positives,
        }
        for name, value in zip(VOC_CLASSES, precision, strict=True)
    ]
    eleven, area = ([getattr(p, k) for p in precision] for k in ("eleven_point", "area"))
    mean = {"AP_11point": percent(mean_of(eleven)), "AP_area": percent(mean_of(area))}
    return [*rows, {"class": MEAN, **mean, "objects": sum(p.positives for p in precision)}]


def iou_rows(matrix: ConfusionMatrix) -> list[Row]:
    """Return a row per class, background first, and one of the mean."""
    names = ("background", *VOC_CLASSES)
    rows: list[Row] = [
        {"class": name, "IoU": percent(value)}
        for name, value in zip(names, matrix.iou().tolist(), strict=True)
    ]
    return [*rows, {"class": MEAN, "IoU": percent(matrix.mean_iou())}]


def percent(value: float) -> float | str:
    """Return a share in percent with two decimals; an empty string for NaN."""
    return "" if value != value else round(100 * value, 2)


def write_detections(path: Path, images: VocObjects, found: Sequence[Detections]) -> None:
    """Write the boxes of each image as JSON: class, score, and corners in pixels."""
    content = [
        {
            "image": name,
            "objects": [
                {"class": VOC_CLASSES[label], "score": round(score, 4), "box": box}
                for label, score, box in zip(
                    answers.labels.tolist(),
                    answers.scores.tolist(),
                    [[round(corner, 1) for corner in box] for box in answers.boxes.tolist()],
                    strict=True,
                )
            ],
        }
        for name, answers in zip(images.names, found, strict=True)
    ]
    with replacing(path) as part:
        part.write_text(json.dumps(content) + "\n")
