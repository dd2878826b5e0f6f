"""Agreement of pseudo labels with annotations: cases with known answers."""

import math

import numpy as np
import pytest

from uic_plugin.evaluation.clustering import agreement, class_statistics, hungarian_accuracy


def test_renamed_classes_agree_fully():
    annotations = np.repeat([0, 1, 2], 5)
    numbers = agreement(annotations, (annotations + 1) % 3, 3)
    assert numbers == pytest.approx(
        {
            "nmi_arithmetic": 1,
            "nmi_geometric": 1,
            "adjusted_rand": 1,
            "purity": 1,
            "hungarian_accuracy": 1,
        }
    )


def test_the_two_averages_differ():
    annotations = np.repeat([0, 1], 4)  # entropy ln 2
    labels = np.arange(8) // 2  # entropy ln 4, mutual information ln 2
    numbers = agreement(annotations, labels, 4)
    assert numbers["nmi_arithmetic"] == pytest.approx(2 / 3)
    assert numbers["nmi_geometric"] == pytest.approx(1 / math.sqrt(2))
    assert numbers["purity"] == 1
    assert "hungarian_accuracy" not in numbers


def test_independent_labels_agree_by_chance():
    annotations, labels = np.divmod(np.arange(16), 4)
    numbers = agreement(annotations, labels, 4)
    assert numbers["nmi_arithmetic"] == pytest.approx(0, abs=1e-9)
    assert numbers["adjusted_rand"] == pytest.approx(-0.25)
    assert numbers["hungarian_accuracy"] == pytest.approx(0.25)


def test_hungarian_names_each_class_once():
    # class 0 is mostly b, class 1 is mostly b too: one of them must take a
    annotations = np.array([1, 1, 1, 0, 1, 1, 0, 0])
    labels = np.array([0, 0, 0, 0, 1, 1, 1, 1])
    assert hungarian_accuracy(annotations, labels) == pytest.approx(5 / 8)


def test_class_statistics():
    columns = class_statistics(
        np.array([0, 2, 2]), np.array([0.5, 0.2, 0.4]), np.array([1.0, 2.0, 4.0]), 3
    )
    assert columns["size"].tolist() == [1, 0, 2]
    np.testing.assert_allclose(columns["confidence"], [0.5, math.nan, 0.3])
    np.testing.assert_allclose(columns["entropy"], [1, math.nan, 3])


def test_lengths_that_differ():
    with pytest.raises(ValueError, match=r"of the same images, got \(3,\) and \(2,\)"):
        agreement(np.zeros(3), np.zeros(2), 2)
