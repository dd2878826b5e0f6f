"""Mean intersection over union, against answers by hand and scikit-learn's Jaccard index."""

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import jaccard_score

from uic_plugin.evaluation.voc.mean_iou import ConfusionMatrix


def test_by_hand():
    matrix = ConfusionMatrix(4)
    truth = torch.tensor([[0, 0, 1], [1, 255, 1]], dtype=torch.uint8)
    matrix.add(truth, torch.tensor([[0, 1, 1], [1, 2, 0]], dtype=torch.uint8))
    assert matrix.counts[:2, :2].tolist() == [[1, 1], [1, 2]]
    assert matrix.counts.sum() == 5  # the border does not count, whatever is predicted there
    iou = matrix.iou()
    assert iou[:2].tolist() == pytest.approx([1 / 3, 2 / 4])
    assert all(map(math.isnan, iou[2:].tolist()))
    assert matrix.mean_iou() == pytest.approx((1 / 3 + 1 / 2) / 2)
    assert float(matrix.counts.diag().sum() / matrix.counts.sum()) == pytest.approx(3 / 5)


def test_a_class_that_is_only_predicted_counts_with_zero():
    matrix = ConfusionMatrix(3)
    matrix.add(torch.zeros(2, 2, dtype=torch.uint8), torch.tensor([[0, 0], [0, 2]]))
    assert matrix.mean_iou() == pytest.approx((3 / 4 + 0) / 2)


def test_equals_scikit_learn_over_several_images():
    rng = np.random.default_rng(0)
    matrix = ConfusionMatrix(21)
    truths, answers = [], []
    for side in (20, 31, 44):
        truth = rng.integers(0, 21, (side, side + 1))
        answer = np.where(rng.random(truth.shape) < 0.6, truth, rng.integers(0, 21, truth.shape))
        matrix.add(torch.from_numpy(truth), torch.from_numpy(answer))
        truths.append(truth.ravel())
        answers.append(answer.ravel())
    theirs = jaccard_score(np.concatenate(truths), np.concatenate(answers), average=None)
    assert matrix.iou().tolist() == pytest.approx(theirs.tolist())


def test_two_sizes_are_refused():
    with pytest.raises(ValueError, match=r"masks of \(2, 2\) and \(2, 3\) pixels"):
        ConfusionMatrix(2).add(torch.zeros(2, 2), torch.zeros(2, 3))
