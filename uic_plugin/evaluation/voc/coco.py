"""COCO's average precision of boxes, by faster-coco-eval or pycocotools."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from typing import Any

import torch

from uic_plugin.data.voc_folder import VOC_CLASSES, VocObjects
from uic_plugin.evaluation.voc.average_precision import Detections

_FIGURES = ("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large")


def coco_precision(found: Sequence[Detections], images: VocObjects) -> dict[str, float]:
    """Return COCO's six average precisions in [0, 1]; -1 without objects of that size.

    Difficult objects are crowds: detections of them are left out.

    Raises:
        ImportError: without both libraries.
    """
    api, evaluator = _library()
    truth = api()
    truth.dataset = {
        "info": {},
        "images": [
            {"id": number, "width": width, "height": height}
            for number, (width, height) in enumerate(images.sizes)
        ],
        "categories": [{"id": i, "name": name} for i, name in enumerate(VOC_CLASSES)],
        "annotations": _annotations(images),
    }
    answers = [
        {"image_id": number, "category_id": label, "bbox": box, "score": score}
        for number, detections in enumerate(found)
        for label, box, score in zip(
            detections.labels.tolist(),
            _corner_and_size(detections.boxes),
            detections.scores.tolist(),
            strict=True,
        )
    ]
    if not answers:
        return dict.fromkeys(_FIGURES, 0.0)
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        evaluation = evaluator(truth, truth.loadRes(answers), iouType="bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return {name: float(evaluation.stats[i]) for i, name in enumerate(_FIGURES)}


def _annotations(images: VocObjects) -> list[dict[str, Any]]:
    annotations: list[dict[str, Any]] = []
    for number, objects in enumerate(images.objects):
        for box, label, difficult in zip(
            _corner_and_size(objects.boxes),
            objects.labels.tolist(),
            objects.difficult.tolist(),
            strict=True,
        ):
            annotations.append(
                {
                    "id": len(annotations) + 1,  # 0 means no match to the libraries
                    "image_id": number,
                    "category_id": label,
                    "bbox": box,
                    "area": box[2] * box[3],
                    "iscrowd": int(difficult),
                }
            )
    return annotations


def _corner_and_size(boxes: torch.Tensor) -> list[list[float]]:
    both = boxes.clone()
    both[:, 2:] -= both[:, :2]
    return [list(map(float, box)) for box in both]


def _library() -> tuple[Any, Any]:
    try:
        from faster_coco_eval import COCO, COCOeval_faster

        return COCO, COCOeval_faster
    except ImportError:
        pass
    try:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    except ImportError as error:
        raise ImportError(
            "COCO's average precision needs faster-coco-eval or pycocotools: "
            "pip install 'uic-plugin[voc]'"
        ) from error
    return COCO, COCOeval
