"""Average precision: known answers, and equality with an independent implementation."""

import math

import numpy as np
import pytest
import torch

from uic_plugin.data.voc_folder import VocObjects, find_voc
from uic_plugin.evaluation.voc.average_precision import (
    Detections,
    classification_precision,
    detection_precision,
    interpolated,
    mean_of,
)
from uic_plugin.evaluation.voc.coco import coco_precision


def of(scores, truth):
    (result,) = classification_precision(torch.tensor([scores]).T, torch.tensor([truth]).T)
    return result


def test_classification_by_hand():
    # right, wrong, right: precision 1 up to recall 1/2, then 2/3
    result = of([0.9, 0.8, 0.7], [1.0, 0.0, 1.0])
    assert result.area == pytest.approx(0.5 + 0.5 * 2 / 3)
    assert result.eleven_point == pytest.approx((6 + 5 * 2 / 3) / 11)
    assert result.positives == 2
    perfect = of([3.0, 2.0, -1.0], [1.0, 1.0, 0.0])
    assert (perfect.eleven_point, perfect.area) == (1, 1)
    worst = of([0.0, 2.0, 3.0], [1.0, 0.0, 0.0])
    assert (worst.eleven_point, worst.area) == (pytest.approx(1 / 3), pytest.approx(1 / 3))


def test_difficult_images_do_not_count():
    plain = of([0.9, 0.7, 0.6], [1.0, 0.0, 1.0])
    assert of([0.9, 0.8, 0.7, 0.6], [1.0, math.nan, 0.0, 1.0]) == plain


def test_a_class_that_is_nowhere_has_no_value():
    result = of([0.9, 0.8], [0.0, 0.0])
    assert math.isnan(result.area)
    assert math.isnan(result.eleven_point)
    assert mean_of([0.5, math.nan, 1.0]) == 0.75
    assert math.isnan(mean_of([math.nan]))


def test_precision_at_a_recall_that_is_met_exactly():
    recall = np.arange(1, 11) / 10  # 0.3 is not 3 * 0.1
    assert interpolated(recall, np.ones(10), 10).eleven_point == 1


def boxes(*corners):
    return torch.tensor(corners, dtype=torch.float32).view(-1, 4)


def found(corners, scores, labels=None):
    return Detections(corners, torch.tensor(labels or [0] * len(scores)), torch.tensor(scores))


def test_detection_by_hand():
    truth = boxes([0, 0, 10, 10], [20, 20, 30, 30])
    detections = found(
        # right; the same object again; an overlap of 1/3; nothing there
        boxes([0, 0, 10, 10], [0, 0, 10, 9], [20, 20, 30, 25], [50, 50, 60, 60]),
        [0.9, 0.8, 0.7, 0.95],
    )
    (result,) = detection_precision(
        [detections], [truth], [torch.zeros(2)], [torch.zeros(2, dtype=torch.bool)], num_classes=1
    )
    # wrong, right, wrong, right (an overlap of 1/2 is enough)
    assert result.area == pytest.approx(0.5 * 0.5 + 0.5 * 0.5)
    assert result.positives == 2


def test_difficult_objects_count_neither_way():
    truth = boxes([0, 0, 10, 10], [20, 20, 30, 30])
    difficult = torch.tensor([False, True])
    detections = found(boxes([20, 20, 30, 30], [20, 20, 30, 29], [0, 0, 10, 10]), [0.9, 0.8, 0.7])
    (result,) = detection_precision(
        [detections], [truth], [torch.zeros(2)], [difficult], num_classes=1
    )
    assert (result.area, result.positives) == (1, 1)


def test_nothing_found():
    (result,) = detection_precision(
        [found(boxes(), [])],
        [boxes([0, 0, 1, 1])],
        [torch.zeros(1)],
        [torch.zeros(1, dtype=torch.bool)],
        num_classes=1,
    )
    assert (result.area, result.eleven_point) == (0, 0)


def shaken(objects, generator, classes):
    """Real boxes moved, some of them twice, some of another class, and some from nowhere."""
    count = len(objects.labels)
    noise = 4 * torch.randn(2 * count, 4, generator=generator)
    corners = objects.boxes.repeat(2, 1) + noise
    corners[:, 2:] = torch.maximum(corners[:, 2:], corners[:, :2] + 1)
    labels = objects.labels.repeat(2)
    other = torch.rand(2 * count, generator=generator) < 0.2
    labels[other] = torch.randint(classes, (int(other.sum()),), generator=generator)
    return Detections(corners, labels, torch.rand(2 * count, generator=generator))


def test_equals_an_independent_implementation(voc_digits):
    metrics = pytest.importorskip("mean_average_precision")
    images = VocObjects(find_voc(voc_digits, "trainval"), "trainval")
    generator = torch.Generator().manual_seed(0)
    truth = images.objects * 8
    answers = [shaken(objects, generator, 3) for objects in truth]
    ours = detection_precision(
        answers,
        [o.boxes for o in truth],
        [o.labels for o in truth],
        [o.difficult for o in truth],
        num_classes=3,
    )
    theirs = metrics.MetricBuilder.build_evaluation_metric("map_2d", num_classes=3)
    for objects, answer in zip(truth, answers, strict=True):
        # it takes both corners as pixels that belong to the box
        last = torch.tensor([0, 0, 1, 1])
        rows = [answer.boxes - last, answer.labels[:, None], answer.scores[:, None]]
        real = [objects.boxes - last, objects.labels[:, None], torch.zeros(len(objects.labels), 2)]
        theirs.add(torch.cat(rows, 1).numpy(), torch.cat(real, 1).numpy())
    area = theirs.value(iou_thresholds=0.5)[0.5]
    recalls = np.linspace(0, 1, 11) - 1e-9  # 12 of 40 objects are a recall of 0.3
    eleven = theirs.value(iou_thresholds=0.5, recall_thresholds=recalls)[0.5]
    for label, result in enumerate(ours):
        assert 0.1 < result.area < 0.9
        assert result.area == pytest.approx(float(area[label]["ap"]), abs=1e-6)
        assert result.eleven_point == pytest.approx(float(eleven[label]["ap"]), abs=1e-6)


def test_both_libraries_of_coco_agree(voc_digits, monkeypatch):
    pytest.importorskip("faster_coco_eval")
    pytest.importorskip("pycocotools")
    images = VocObjects(find_voc(voc_digits, "trainval"), "trainval")
    generator = torch.Generator().manual_seed(1)
    answers = [shaken(objects, generator, 3) for objects in images.objects]
    fast = coco_precision(answers, images)
    monkeypatch.setitem(__import__("sys").modules, "faster_coco_eval", None)
    assert coco_precision(answers, images) == pytest.approx(fast)
    assert 0 < fast["AP"] < fast["AP50"] < 1
    perfect = [Detections(o.boxes, o.labels, torch.ones(len(o.labels))) for o in images.objects]
    assert coco_precision(perfect, images)["AP"] == pytest.approx(1)
    monkeypatch.setitem(__import__("sys").modules, "pycocotools.coco", None)
    with pytest.raises(ImportError, match="pip install 'uic-plugin"):
        coco_precision(perfect, images)
