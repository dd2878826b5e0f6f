"""Permutations that are computed, not stored."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from uic_plugin.pseudo_labels import keyed
from uic_plugin.pseudo_labels.keyed import KeyedPermutation, drawn


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 3000), st.integers(0, 2**63))
def test_each_number_once(count, key):
    for kept in (0, 1 << 16):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(keyed, "_KEPT", kept)
            result = KeyedPermutation(count, key)(np.arange(count))
        assert np.array_equal(np.sort(result), np.arange(count))


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 2**63), st.integers(0, 2**63), st.data())
def test_a_part_is_a_part_of_the_whole(count, key, data):
    permutation = KeyedPermutation(count, key)
    numbers = data.draw(st.lists(st.integers(0, count - 1), max_size=50, unique=True))
    result = permutation(np.array(numbers, np.uint64))
    assert (result < count).all()
    assert len(set(result.tolist())) == len(numbers)
    one_by_one = [permutation(np.array([number], np.uint64))[0] for number in numbers]
    assert result.tolist() == one_by_one


@pytest.mark.parametrize(("count", "kept"), [(5, 5), (64, 0), (90, 0)])
def test_every_number_goes_everywhere_equally_often(monkeypatch, count, kept):
    monkeypatch.setattr(keyed, "_KEPT", kept)
    keys = 2000
    table = np.zeros((count, count))
    for key in range(keys):
        table[np.arange(count), KeyedPermutation(count, key)(np.arange(count))] += 1
    expected = keys / count
    statistic = ((table - expected) ** 2 / expected).sum()
    freedom = (count - 1) ** 2
    assert abs(statistic - freedom) < 6 * np.sqrt(2 * freedom)


def test_neighbours_part():
    result = KeyedPermutation(1_000_003, 7)(np.arange(200_000)).astype(float)
    steps = np.abs(np.diff(result)) / 1_000_003
    assert steps.mean() == pytest.approx(1 / 3, abs=0.01)  # of two independent places
    assert abs(np.corrcoef(result[:-1], result[1:])[0, 1]) < 0.02


def test_draws_are_uniform_and_depend_on_number_and_key():
    numbers, counts = np.arange(70_000, dtype=np.uint64), np.full(70_000, 7)
    draws = drawn(numbers, counts, 3)
    assert np.abs(np.bincount(draws, minlength=7) / 10_000 - 1).max() < 0.05
    assert (drawn(numbers, counts, 4) != draws).mean() == pytest.approx(6 / 7, abs=0.02)
    assert drawn(numbers, np.ones_like(counts), 3).max() == 0


@pytest.mark.parametrize("count", [0, -1, (1 << 63) + 1])
def test_impossible_counts(count):
    with pytest.raises(ValueError, match=str(count)):
        KeyedPermutation(count, 0)
