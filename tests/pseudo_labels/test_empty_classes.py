"""The fixer: largest class, two halves, nobody else moves."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from uic_plugin import EmptyClassFixer


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_no_empty_class_no_change():
    labels = torch.tensor([0, 1, 1, 2])
    assert EmptyClassFixer(3).fix(labels, generator()) == 0
    assert labels.tolist() == [0, 1, 1, 2]


def test_one_empty_class_gets_half_of_the_largest():
    labels = torch.tensor([0] * 7 + [1] * 4)
    assert EmptyClassFixer(3).fix(labels, generator()) == 1
    assert torch.bincount(labels).tolist() == [4, 4, 3]
    assert labels[7:].tolist() == [1] * 4


def test_splits_continue_with_what_is_largest_then():
    # 8 -> 4+4, then 4 -> 2+2 (ties: lowest class id), then the other 4
    labels = torch.zeros(8, dtype=torch.int16)
    assert EmptyClassFixer(4).fix(labels, generator()) == 3
    assert torch.bincount(labels.long()).tolist() == [2, 2, 2, 2]


def test_halves_are_random_and_repeatable():
    picks = torch.zeros(20)
    for seed in range(400):
        labels = torch.zeros(20, dtype=torch.int16)
        EmptyClassFixer(2).fix(labels, generator(seed))
        picks += labels.float()
    assert (picks / 400 - 0.5).abs().max() < 0.13  # 5 standard deviations
    first, second = torch.zeros(20).long(), torch.zeros(20).long()
    EmptyClassFixer(2).fix(first, generator(5))
    EmptyClassFixer(2).fix(second, generator(5))
    assert torch.equal(first, second)


def test_as_many_images_as_classes():
    labels = torch.zeros(5, dtype=torch.int32)
    assert EmptyClassFixer(5).fix(labels, generator()) == 4
    assert sorted(labels.tolist()) == [0, 1, 2, 3, 4]


def test_impossible():
    with pytest.raises(ValueError, match="2 images cannot fill 3 classes"):
        EmptyClassFixer(3).fix(torch.zeros(2, dtype=torch.long), generator())
    with pytest.raises(ValueError, match="at least 1, got 0"):
        EmptyClassFixer(0)
    with pytest.raises(ValueError, match=r"\[0, 2\), found \[0, 2\]"):
        EmptyClassFixer(2).fix(torch.tensor([0, 1, 2]), generator())


def split_one_by_one(sizes):
    """Sizes after the splits, by looking for the largest class anew each time."""
    sizes = list(sizes)
    for c, size in enumerate(sizes):
        if size == 0:
            largest = max(range(len(sizes)), key=lambda d: (sizes[d], -d))
            sizes[c] = sizes[largest] // 2
            sizes[largest] -= sizes[c]
    return sizes


@st.composite
def labellings(draw):
    num_classes = draw(st.integers(1, 40))
    num_images = draw(st.integers(num_classes, 120))
    used = draw(st.integers(1, num_classes))
    labels = draw(st.lists(st.integers(0, used - 1), min_size=num_images, max_size=num_images))
    shift = draw(st.integers(0, num_classes - used))
    return num_classes, [label + shift for label in labels]


def check_equals_one_split_after_the_other(case, dtype, seed):
    num_classes, before = case
    labels = torch.tensor(before, dtype=dtype)
    num_splits = EmptyClassFixer(num_classes).fix(labels, generator(seed))
    old = np.bincount(before, minlength=num_classes)
    new = np.bincount(labels.numpy(), minlength=num_classes)
    assert new.tolist() == split_one_by_one(old)
    assert num_splits == int((old == 0).sum())
    assert new.min() >= 1
    moved = labels.numpy() != np.array(before)
    assert (old[labels.numpy()[moved]] == 0).all()  # only to classes that were empty
    assert (new[np.array(before)[moved]] < old[np.array(before)[moved]]).all()  # from split ones


@settings(max_examples=150, deadline=None)
@given(labellings(), st.sampled_from([torch.int16, torch.int32, torch.int64]), st.integers(0, 99))
def test_equals_one_split_after_the_other(case, dtype, seed):
    check_equals_one_split_after_the_other(case, dtype, seed)


@pytest.mark.slow
@settings(max_examples=4000, deadline=None)
@given(labellings(), st.sampled_from([torch.int16, torch.int32, torch.int64]), st.integers(0, 99))
def test_equals_one_split_after_the_other_often(case, dtype, seed):
    check_equals_one_split_after_the_other(case, dtype, seed)


@pytest.mark.parametrize("block", [1, 50, 1000])
def test_working_in_blocks_changes_no_rule(monkeypatch, block):
    from uic_plugin.pseudo_labels import empty_classes, grouping

    for module in (empty_classes, grouping):
        monkeypatch.setattr(module, "_BLOCK", block)
    before = np.random.default_rng(0).integers(0, 7, 400)
    labels = torch.from_numpy(before.copy())
    EmptyClassFixer(60).fix(labels, generator())
    old = np.bincount(before, minlength=60)
    assert np.bincount(labels.numpy(), minlength=60).tolist() == split_one_by_one(old)
