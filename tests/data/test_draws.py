"""Shares of a pass over all images."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DistributedSampler

from uic_plugin.data.draws import DrawnShare


def shares(count, ranks, *, epoch=1, **options):
    """Return the draws of all ranks."""
    return [
        list(DrawnShare(range(count), lambda: epoch, num_replicas=ranks, rank=rank, **options))
        for rank in range(ranks)
    ]


@given(st.integers(1, 300), st.integers(1, 5), st.booleans(), st.integers(0, 3))
def test_ranks_share_all_images_equally(count, ranks, shuffle, epoch):
    found = shares(count, ranks, epoch=epoch, shuffle=shuffle, seed=5)
    assert {len(share) for share in found} == {-(-count // ranks)}
    assert {index for share in found for index in share} == set(range(count))
    for draw in found[-1]:
        assert (draw.epoch, draw.position) == (epoch, count + draw)


@given(st.integers(1, 300), st.integers(1, 5))
def test_in_the_order_of_the_images_as_torch_shares_them(count, ranks):
    theirs = [
        list(DistributedSampler(range(count), ranks, rank, shuffle=False)) for rank in range(ranks)
    ]
    assert shares(count, ranks, shuffle=False) == theirs


def test_a_random_order_of_seed_and_epoch():
    def order(seed, epoch):
        (share,) = shares(1000, 1, epoch=epoch, shuffle=True, seed=seed)
        return [int(index) for index in share]

    assert order(0, 1) == order(0, 1)
    orders = torch.tensor([order(0, 1), order(0, 2), order(1, 1), range(1000)]).float()
    # correlations of independent orders have a standard deviation of 0.03
    assert (torch.corrcoef(orders) - torch.eye(4)).abs().max() < 0.2
