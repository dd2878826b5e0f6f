"""Figures of the classes that a method found itself."""

import numpy as np
import pytest
import torch

from uic_plugin.experiments.compare.own_classes import (
    kmeans_figures,
    merged,
    own_class_figures,
    own_logits,
)
from uic_plugin.networks.heads import PseudoClassHead

ANNOTATED = np.repeat([0, 1], 6)
POINTS = np.stack([np.repeat([1.0, -1.0], 6), np.tile([0.1, 0.0, -0.1], 4)], 1)


def test_classes_that_split_the_annotated_ones_are_merged():
    own = np.array([0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5])
    figures = own_class_figures([(own, 8)], POINTS, ANNOTATED, 0)
    assert figures["own_classes"] == 8
    assert figures["own_accuracy"] == pytest.approx(4 / 12)  # a class of two images for each
    assert figures["own_purity"] == 1
    assert 0.5 < figures["own_nmi"] < 1
    assert figures["own_nmi_annotated"] == pytest.approx(1)
    assert figures["own_accuracy_annotated"] == 1


def test_a_head_with_as_many_classes_as_are_annotated_is_taken():
    first, second = np.arange(12) // 2, np.arange(12) % 2
    figures = own_class_figures([(first, 6), (second, 2)], POINTS, ANNOTATED, 0)
    assert figures["own_accuracy_annotated"] == 0.5
    assert figures["own_nmi_annotated"] == pytest.approx(0, abs=1e-9)


def test_few_classes_in_use_are_taken_as_they_are():
    figures = own_class_figures([(np.zeros(12, int), 9)], POINTS, ANNOTATED, 0)
    assert (figures["own_nmi_annotated"], figures["own_accuracy_annotated"]) == (0, 0.5)
    assert own_class_figures([], POINTS, ANNOTATED, 0) == {}


def test_merging_keeps_classes_whole():
    own = np.array([5, 5, 7, 7, 7, 9, 9, 9, 9, 11, 11, 11])
    groups = merged(own, POINTS, 2, seed=0)
    assert set(groups) == {0, 1}
    assert all(len(set(groups[own == label])) == 1 for label in set(own))


def test_kmeans_of_two_groups():
    rng = np.random.default_rng(0)
    features = np.repeat(np.eye(2), 50, 0) * 10 + rng.normal(size=(100, 2))
    annotated = np.repeat([0, 1], 50)
    figures = kmeans_figures(features.astype(np.float32), annotated, 4, 0)
    assert figures["kmeans_accuracy_annotated"] > 0.9
    assert figures["kmeans_nmi_annotated"] > 0.6
    assert figures["kmeans_accuracy"] <= figures["kmeans_accuracy_annotated"]


class Prototypes(torch.nn.Module):
    def __init__(self, *counts):
        super().__init__()
        self.projector = torch.nn.Linear(4, 3)
        sets = [torch.nn.Linear(3, count, bias=False) for count in counts]
        self.prototypes = torch.nn.ModuleList(sets) if counts[1:] else sets[0]


def test_logits_of_heads_and_of_prototypes():
    features = torch.randn(5, 4)
    method = torch.nn.Module()
    method.head = PseudoClassHead(4, 7, heads=2)
    assert [part.shape for part in own_logits(method, features)] == [(5, 7), (5, 7)]
    assert [part.shape for part in own_logits(Prototypes(6), features)] == [(5, 6)]
    assert [part.shape for part in own_logits(Prototypes(6, 9), features)] == [(5, 6), (5, 9)]
    says = torch.nn.Module()
    says.own_logits = lambda features: [features[:, :2]]
    assert [part.shape for part in own_logits(says, features)] == [(5, 2)]
    plain = torch.nn.Module()
    plain.projector = torch.nn.Linear(4, 3)
    assert own_logits(plain, features) == []
