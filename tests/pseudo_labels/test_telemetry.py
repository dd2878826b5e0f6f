"""Numbers with known answers."""

import math

import numpy as np
import pytest
import torch

from uic_plugin.pseudo_labels import EpochTelemetry, PseudoLabelBank, nmi, purity


def test_nmi_and_purity_by_hand():
    annotations = np.array([0, 0, 0, 1, 1, 1])
    assert nmi(annotations, annotations + 5) == pytest.approx(1.0)
    assert nmi(annotations, np.zeros(6, dtype=int)) == pytest.approx(0.0)
    labels = np.array([0, 0, 1, 1, 2, 2])
    # I = H(annotation) - H(annotation | label) = ln 2 - ln 2 / 3; average entropy (ln 2 + ln 3) / 2
    expected = (math.log(2) * 2 / 3) / ((math.log(2) + math.log(3)) / 2)
    assert nmi(annotations, labels) == pytest.approx(expected)
    assert purity(annotations, labels) == pytest.approx(5 / 6)


@pytest.mark.parametrize("average", ["arithmetic", "geometric"])
def test_nmi_in_blocks_equals_scikit_learns(monkeypatch, average):
    from sklearn.metrics import normalized_mutual_info_score

    rng = np.random.default_rng(0)
    first, second = rng.integers(0, 7, 1000), rng.integers(3, 40, 1000)
    second[:500] = first[:500]
    expected = normalized_mutual_info_score(first, second, average_method=average)
    monkeypatch.setattr("uic_plugin.pseudo_labels.telemetry._BLOCK", 64)
    assert nmi(first, second, average=average) == pytest.approx(expected, abs=1e-12)
    assert nmi(np.zeros(5, int), np.zeros(5, int)) == 1


def summary(annotations):
    bank = PseudoLabelBank(4, 2, init="balanced")
    bank.update(torch.arange(4), torch.tensor([0, 0, 1, 1]))
    bank.commit()
    telemetry = EpochTelemetry(annotations)
    # confidences 0.5 and 0.8
    telemetry.observe(torch.tensor([[0.0, 0.0]]))
    telemetry.observe(torch.log(torch.tensor([[0.8, 0.2]])))
    bank.update(torch.tensor([1, 2]), torch.tensor([1, 1]))
    return telemetry, telemetry.summary(bank, bank.commit(compare=telemetry.compare))


def test_summary_by_hand():
    telemetry, metrics = summary(np.array([0, 1, 1, 1]))
    assert metrics["changed"] == 0.25
    # {0, 1}, {2, 3} before and {0}, {1, 2, 3} after
    h = [math.log(2), -(0.25 * math.log(0.25) + 0.75 * math.log(0.75))]
    joint = -(2 * 0.25 * math.log(0.25) + 0.5 * math.log(0.5))
    assert metrics["nmi_previous"] == pytest.approx((sum(h) - joint) / (sum(h) / 2))
    assert metrics["coverage"] == 0.5
    assert metrics["nmi"] == pytest.approx(1.0)
    assert metrics["purity"] == 1.0
    assert metrics["annotated_classes"] == metrics["classes_used"] == 2
    assert (metrics["class_size_min"], metrics["class_size_max"]) == (1, 3)
    assert metrics["class_size_median"] == 2
    assert metrics["class_size_cv"] == pytest.approx(0.5)
    assert metrics["confidence"] == pytest.approx(0.65)
    entropy = (math.log(2) - 0.8 * math.log(0.8) - 0.2 * math.log(0.2)) / 2
    assert metrics["entropy"] == pytest.approx(entropy)
    assert telemetry.sums.tolist() == [0, 0, 0]


def test_coverage_is_of_the_images_that_were_drawn_where_a_pass_labels_all():
    bank, telemetry = PseudoLabelBank(4, 2, init="balanced"), EpochTelemetry()
    for drawn, covered in ((3, 0.75), (0, 0.0), (None, 1.0)):
        telemetry.num_drawn = drawn
        bank.update(torch.arange(4), torch.tensor([0, 0, 1, 1]))
        assert telemetry.summary(bank, bank.commit())["coverage"] == covered


@pytest.mark.parametrize("annotations", [None, np.array([-1, -1, -1, -1])])
def test_without_annotations_nothing_is_said_of_them(annotations):
    _, metrics = summary(annotations)
    assert "nmi" not in metrics
    assert "nmi_previous" in metrics


def test_unknown_annotations_are_left_out():
    _, metrics = summary(np.array([0, 1, -1, 1]))
    assert metrics["purity"] == 1.0
