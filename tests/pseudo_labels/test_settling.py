"""Cosine classifiers that turn to the means of their classes."""

import math
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from uic_plugin.pseudo_labels.settling import settle


def at(*degrees):
    angles = torch.tensor(degrees, dtype=torch.float64) * math.pi / 180
    return torch.stack([angles.cos(), angles.sin()], dim=1)


def test_two_classes_on_a_circle():
    # 50 degrees is nearer to the direction at 80, so that both turn in the first round and 50
    # changes sides in the second: the means are those of 0, 10, 50 and of 100, 110
    settled = settle(at(0, 10, 50, 100, 110), at(10, 80), rounds=1)
    torch.testing.assert_close(settled[0], at(5)[0])
    torch.testing.assert_close(settled[1], F.normalize(at(50, 100, 110).sum(0), dim=0))
    settled = settle(at(0, 10, 40, 100, 110), at(5, 70), rounds=10)
    torch.testing.assert_close(settled[0], F.normalize(at(0, 10, 40).sum(0), dim=0))
    torch.testing.assert_close(settled[1], at(105)[0])


def test_lengths_do_not_count_and_a_class_without_images_stays():
    embeddings = at(0, 10, 90) * torch.tensor([[1.0], [100.0], [0.01]], dtype=torch.float64)
    settled = settle(embeddings, 3 * at(0, 95, 200), rounds=5)
    torch.testing.assert_close(settled, at(5, 90, 200))


def test_no_round_is_the_classifier_as_trained():
    torch.testing.assert_close(settle(at(1, 2), 2 * at(30, 60), rounds=0), at(30, 60))


def test_embeddings_of_another_width_are_refused():
    with pytest.raises(ValueError, match="width 3 do not fit directions of width 2"):
        settle(torch.ones(4, 3), torch.ones(2, 2), rounds=1)


@given(st.integers(0, 1000), st.integers(2, 6), st.integers(1, 40))
def test_the_sum_of_cosines_never_falls(seed, classes, images):
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(images, 3, generator=generator, dtype=torch.float64)
    directions = torch.randn(classes, 3, generator=generator, dtype=torch.float64)
    sums = []
    for rounds in range(6):
        settled = settle(z, directions, rounds)
        torch.testing.assert_close(settled.norm(dim=1), torch.ones(classes, dtype=torch.float64))
        sums.append(float((F.normalize(z, dim=1) @ settled.T).max(dim=1).values.sum()))
    assert all(later >= before - 1e-9 for before, later in pairwise(sums))
