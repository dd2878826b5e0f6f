"""The bank: frozen targets, staged updates, a state that is enough."""

import io

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from uic_plugin import EmptyClassFixer, PseudoLabelBank


def bank_of(labels, num_classes, **kwargs):
    bank = PseudoLabelBank(len(labels), num_classes, **kwargs)
    bank.update(torch.arange(len(labels)), torch.tensor(labels))
    bank.commit()
    return bank


def test_targets_are_frozen_until_commit():
    bank = bank_of([0, 1, 2, 0], 3)
    bank.update(torch.tensor([0, 3]), torch.tensor([2, 1]))
    assert bank.targets(torch.arange(4)).tolist() == [0, 1, 2, 0]
    boundary = bank.commit()
    assert bank.targets(torch.arange(4)).tolist() == [2, 1, 2, 1]
    assert (boundary.epoch, boundary.num_seen, boundary.num_changed, boundary.num_splits) == (
        2,
        2,
        2,
        0,
    )


def test_an_image_that_was_not_seen_keeps_its_label():
    bank = bank_of([0, 1, 2], 3)
    bank.update(torch.tensor([1]), torch.tensor([1]))
    boundary = bank.commit()
    assert bank.labels.tolist() == [0, 1, 2]
    assert (boundary.num_seen, boundary.num_changed) == (1, 0)


def test_last_write_wins_within_and_between_calls():
    bank = bank_of([0, 0, 0, 0], 4)
    bank.update(torch.tensor([1, 0, 1, 1]), torch.tensor([3, 1, 0, 2]))
    bank.update(torch.tensor([0]), torch.tensor([3]))
    bank.commit()
    assert bank.labels.tolist() == [3, 2, 0, 0]


def test_commit_fills_empty_classes_with_half_of_the_largest():
    bank = bank_of([0, 0, 0, 0, 1, 1], 3)
    boundary = bank.commit(EmptyClassFixer(3))
    assert boundary.num_splits == 1
    assert bank.class_sizes().tolist() == [2, 2, 2]
    assert bank.labels[4:].tolist() == [1, 1]


@pytest.mark.parametrize(("num_classes", "width"), [(32_768, 2), (32_769, 4)])
def test_two_bytes_per_image_up_to_32768_classes(num_classes, width):
    bank = PseudoLabelBank(40_000, num_classes)
    bank.update(torch.tensor([7]), torch.tensor([0]))
    state = bank.state_dict()
    assert state["targets"].element_size() == state["staged"].element_size() == width
    top = torch.tensor([num_classes - 1])
    bank.update(torch.tensor([7]), top)
    bank.commit()
    assert bank.targets(torch.tensor([7])).item() == num_classes - 1
    assert bank.targets(torch.tensor([7])).dtype == torch.int64


def test_initial_labels():
    balanced = PseudoLabelBank(10, 3, init="balanced").class_sizes().tolist()
    assert sorted(balanced) == [3, 3, 4]
    random = PseudoLabelBank(30_000, 10, seed=1)
    assert random.class_sizes().float().std() > 10  # independent draws, not dealt out
    assert torch.equal(random.labels, PseudoLabelBank(30_000, 10, seed=1).labels)
    assert not torch.equal(random.labels, PseudoLabelBank(30_000, 10, seed=2).labels)


def test_state_survives_a_file_read_with_weights_only():
    bank = PseudoLabelBank(50, 5, seed=3, fingerprint="abc")
    bank.update(torch.arange(20), torch.arange(20) % 5)
    bank.commit(EmptyClassFixer(5))
    bank.update(torch.arange(7), torch.zeros(7, dtype=torch.long))
    file = io.BytesIO()
    torch.save(bank.state_dict(), file)
    file.seek(0)
    other = PseudoLabelBank(50, 5, seed=9, fingerprint="abc")
    other.load_state_dict(torch.load(file, weights_only=True))
    assert other.commit(EmptyClassFixer(5)) == bank.commit(EmptyClassFixer(5))
    assert torch.equal(other.labels, bank.labels)
    assert other.epoch == bank.epoch == 2


def test_state_is_a_copy():
    bank = PseudoLabelBank(10, 2)
    state = bank.state_dict()
    bank.update(torch.arange(10), 1 - bank.labels.long())
    bank.commit()
    assert not torch.equal(state["targets"], bank.labels)


@pytest.mark.parametrize(
    ("change", "values"),
    [
        ({"num_samples": 51}, ["51", "50"]),
        ({"num_classes": 6}, ["6", "5"]),
        ({"fingerprint": "def"}, ["def", "abc"]),
        ({"targets": torch.full((50,), 5, dtype=torch.int16)}, ["[0, 5)", "5"]),
        ({"staged": torch.full((50,), -2, dtype=torch.int16)}, ["[-1, 5)", "-2"]),
        ({"targets": torch.zeros(50)}, ["float"]),
        ({"targets": torch.zeros(49, dtype=torch.int16)}, ["50"]),
        ({"epoch": -1}, ["-1"]),
        ({"version": 99}, ["99", "1"]),
    ],
)
def test_another_runs_state_is_refused_and_changes_nothing(change, values):
    bank = PseudoLabelBank(50, 5, fingerprint="abc")
    before = bank.labels.clone()
    with pytest.raises(ValueError) as error:  # noqa: PT011  # the values are checked below
        bank.load_state_dict({**bank.state_dict(), **change})
    assert all(value in str(error.value) for value in values), str(error.value)
    assert torch.equal(bank.labels, before)
    assert bank.epoch == 0


def test_something_else_is_no_state():
    with pytest.raises(ValueError, match="no state of a pseudo-label bank"):
        PseudoLabelBank(5, 2).load_state_dict({"state_dict": {}})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 1), "num_samples must be at least 1, got 0"),
        ((5, 0), "at least 1, got 0"),
        ((5, 6), "6 pseudo classes need at least as many images, got 5"),
    ],
)
def test_impossible_sizes(arguments, message):
    with pytest.raises(ValueError, match=message):
        PseudoLabelBank(*arguments)


def test_bad_arguments_name_the_value():
    bank = PseudoLabelBank(5, 3)
    with pytest.raises(ValueError, match="'zeros'"):
        PseudoLabelBank(5, 3, init="zeros")
    with pytest.raises(ValueError, match=r"\[0, 5\), found \[-1, 2\]"):
        bank.targets(torch.tensor([-1, 2]))
    with pytest.raises(ValueError, match=r"\[0, 3\), found \[0, 3\]"):
        bank.update(torch.tensor([0, 1]), torch.tensor([0, 3]))
    with pytest.raises(ValueError, match="one shape"):
        bank.update(torch.tensor([0, 1]), torch.tensor([0]))
    with pytest.raises(ValueError, match="fixer is for 4 classes, the bank has 3"):
        bank.commit(EmptyClassFixer(4))


class ListBank:
    """The same rules on Python lists, image by image."""

    def __init__(self, labels):
        self.now, self.next = list(labels), {}

    def update(self, index, labels):
        for i, label in zip(index, labels, strict=True):
            self.next[i] = label

    def commit(self):
        seen, old = len(self.next), list(self.now)
        for i, label in self.next.items():
            self.now[i] = label
        self.next = {}
        return seen, sum(a != b for a, b in zip(old, self.now, strict=True))


def check_bank_equals_lists(data):
    num_images = data.draw(st.integers(1, 30))
    num_classes = data.draw(st.integers(1, num_images))
    bank = PseudoLabelBank(num_images, num_classes, seed=data.draw(st.integers(0, 99)))
    plain = ListBank(bank.labels.tolist())
    for _ in range(data.draw(st.integers(1, 5))):
        pairs = data.draw(
            st.lists(
                st.tuples(st.integers(0, num_images - 1), st.integers(0, num_classes - 1)),
                max_size=40,
            )
        )
        if data.draw(st.booleans()):
            boundary = bank.commit()
            assert (boundary.num_seen, boundary.num_changed) == plain.commit()
        index, labels = [i for i, _ in pairs], [c for _, c in pairs]
        bank.update(torch.tensor(index, dtype=torch.long), torch.tensor(labels, dtype=torch.long))
        plain.update(index, labels)
        assert bank.targets(torch.arange(num_images)).tolist() == plain.now
        assert bank.num_staged == len(plain.next)
    sizes = np.bincount(plain.now, minlength=num_classes)
    assert bank.class_sizes().tolist() == sizes.tolist()


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_bank_equals_lists(data):
    check_bank_equals_lists(data)


@pytest.mark.slow
@settings(max_examples=4000, deadline=None)
@given(st.data())
def test_bank_equals_lists_often(data):
    check_bank_equals_lists(data)


def test_starts_from_given_labels():
    given = torch.tensor([2, 0, 2, 1])
    bank = PseudoLabelBank(4, 3, labels=given)
    assert bank.labels.tolist() == [2, 0, 2, 1]
    given[0] = 1
    assert bank.labels[0] == 2  # a copy
    with pytest.raises(ValueError, match="4 labels are needed"):
        PseudoLabelBank(4, 3, labels=torch.zeros(5, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"must lie in \[0, 3\), found \[0, 3\]"):
        PseudoLabelBank(4, 3, labels=torch.tensor([0, 1, 2, 3]))
