"""Soft labels that fill all classes equally: by hand, by a whole transport, and in general."""

import math
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from uic_plugin.pseudo_labels.balanced_labels import moved_prices, priced_shares, sinkhorn_shares


def random_logits(seed, rows, classes):
    return torch.randn(rows, classes, generator=torch.Generator().manual_seed(seed))


def test_one_iteration_by_hand():
    """Softmax (3/4, 1/4) and (1/2, 1/2); classes sum to 5/4 and 3/4."""
    logits = torch.tensor([[math.log(3.0), 0.0], [0.0, 0.0]])
    (found,) = sinkhorn_shares([logits], epsilon=1.0, iterations=1)
    first = torch.tensor([0.75 / 1.25, 0.25 / 0.75])
    second = torch.tensor([0.5 / 1.25, 0.5 / 0.75])
    torch.testing.assert_close(found, torch.stack([first / first.sum(), second / second.sum()]))


def test_classes_ahead_in_all_images_are_shared_out():
    """Every image prefers class 0 by 3; the one that prefers it least goes to class 1."""
    logits = torch.tensor([[3.0, 0.0], [3.0, 0.5]])
    (found,) = sinkhorn_shares([logits], epsilon=0.05, iterations=20)
    torch.testing.assert_close(found.round(), torch.eye(2))


def test_balanced_answers_stay():
    (found,) = sinkhorn_shares([torch.eye(4)], epsilon=0.02)
    torch.testing.assert_close(found, torch.eye(4))
    (found,) = sinkhorn_shares([torch.zeros(6, 3)])
    torch.testing.assert_close(found, torch.full((6, 3), 1 / 3))


@settings(deadline=None, max_examples=40)
@given(
    st.integers(0, 2**31),
    st.integers(2, 40),
    st.integers(2, 20),
    st.floats(0.05, 2),
    st.integers(1, 6),
)
def test_shares_are_distributions_and_order_does_not_matter(seed, rows, classes, epsilon, times):
    logits = random_logits(seed, rows, classes)
    (found,) = sinkhorn_shares([logits], epsilon=epsilon, iterations=times)
    torch.testing.assert_close(found.sum(1), torch.ones(rows))
    assert (found >= 0).all()
    order = torch.randperm(rows, generator=torch.Generator().manual_seed(seed))
    (moved,) = sinkhorn_shares([logits[order]], epsilon=epsilon, iterations=times)
    torch.testing.assert_close(moved, found[order])
    # what is added to all logits of an image, or of a class, is taken out again in the end
    (shifted,) = sinkhorn_shares([logits + 7], epsilon=epsilon, iterations=times)
    torch.testing.assert_close(shifted, found, rtol=1e-3, atol=1e-4)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**31), st.integers(8, 40), st.integers(2, 8))
def test_many_iterations_solve_the_transport(seed, rows, classes):
    """Classes are filled equally, and shares are those of prices: the solution is unique."""
    logits = random_logits(seed, rows, classes)
    (found,) = sinkhorn_shares([logits], epsilon=0.5, iterations=300)
    filled = torch.full((classes,), rows / classes)
    torch.testing.assert_close(found.sum(0), filled, rtol=1e-3, atol=1e-3)
    prices = (logits / 0.5 - found.log()).sub_((logits / 0.5 - found.log())[:, :1])
    torch.testing.assert_close(prices, prices[:1].expand(rows, -1), rtol=1e-3, atol=1e-2)
    (again,) = priced_shares([logits], prices[0], epsilon=0.5)
    torch.testing.assert_close(again, found, rtol=1e-2, atol=1e-3)


def test_heads_do_not_touch_each_other_and_ranks_make_one_batch():
    small, large = random_logits(0, 32, 5), random_logits(1, 32, 50)
    both = sinkhorn_shares([small, large])
    for logits, found in zip((small, large), both, strict=True):
        assert torch.equal(found, sinkhorn_shares([logits])[0])
    halves = [(small[:16], large[:16]), (small[16:], large[16:])]
    meeting, brought = threading.Barrier(2), [None, None]

    def shares_of(rank):
        def total(own):
            brought[rank] = own
            meeting.wait(20)
            whole = brought[0] + brought[1]
            meeting.wait(20)
            return whole

        return sinkhorn_shares(halves[rank], total=total)

    with ThreadPoolExecutor(2) as ranks:
        first, second = ranks.map(shares_of, (0, 1))
    for one, two, wanted in zip(first, second, both, strict=True):
        torch.testing.assert_close(torch.cat([one, two]), wanted)


def test_extreme_logits_stay_finite():
    logits = torch.tensor([[1e4, -1e4, 0.0], [1e4, -1e4, 1.0], [1e4, 0.0, -1e4]])
    (found,) = sinkhorn_shares([logits], epsilon=0.01)
    assert torch.isfinite(found).all()
    torch.testing.assert_close(found.sum(1), torch.ones(3))


def test_labels_have_no_gradient():
    logits = torch.zeros(4, 3, requires_grad=True)
    assert not sinkhorn_shares([logits])[0].requires_grad
    assert not priced_shares([logits], torch.zeros(3))[0].requires_grad


def test_a_price_by_hand():
    """Of 4 images class 0 gets all: 2 times its fair share; the other gets nothing."""
    shares = torch.tensor([[1.0, 0.0]]).repeat(4, 1)
    found = moved_prices(torch.zeros(2), [shares], rate=0.1)
    torch.testing.assert_close(found, torch.tensor([0.1, -0.1]))
    logits = torch.zeros(1, 2)
    (dearer,) = priced_shares([logits], torch.tensor([math.log(3.0), 0.0]), epsilon=1.0)
    torch.testing.assert_close(dearer, torch.tensor([[0.25, 0.75]]))


@settings(deadline=None, max_examples=30)
@given(
    st.integers(0, 2**31), st.integers(1, 20), st.lists(st.integers(2, 30), min_size=1, max_size=3)
)
def test_prices_keep_their_sum_and_balanced_classes_theirs(seed, rows, sizes):
    shares = [random_logits(seed, rows, classes).softmax(1) for classes in sizes]
    found = moved_prices(torch.zeros(sum(sizes)), shares, rate=0.3)
    for own in found.split(sizes):
        assert float(own.sum()) == pytest.approx(0, abs=1e-4)
    even = [torch.full((rows, classes), 1 / classes) for classes in sizes]
    torch.testing.assert_close(moved_prices(found, even, rate=0.3), found)


def test_prices_balance_classes_over_batches_smaller_than_their_number():
    """40 classes, 8 images a step, one class far ahead in all of them."""
    generator = torch.Generator().manual_seed(0)
    prices, filled = torch.zeros(40), torch.zeros(40)
    for step in range(1500):
        logits = torch.randn(8, 40, generator=generator)
        logits[:, 3] += 5
        shares = priced_shares([logits], prices, epsilon=1.0)
        prices = moved_prices(prices, shares, rate=0.02)
        if step >= 1000:
            filled += shares[0].sum(0)
    assert float((filled * 40 / 4000 - 1).abs().max()) < 0.2


@pytest.mark.parametrize("small", [3, 7])
def test_prices_of_many_small_batches_are_those_of_sinkhorn(small):
    """In expectation: with a small rate, passes over one fixed set end at its own transport."""
    logits = random_logits(5, 42, 6)
    (wanted,) = sinkhorn_shares([logits], epsilon=0.5, iterations=300)
    prices = torch.zeros(6)
    for rate in (0.1, 0.01):
        for _ in range(80):
            for rows in logits.split(small):
                shares = priced_shares([rows], prices, epsilon=0.5)
                prices = moved_prices(prices, shares, rate=rate)
    (found,) = priced_shares([logits], prices, epsilon=0.5)
    torch.testing.assert_close(found, wanted, rtol=0.1, atol=0.02)
