"""Probe dimensions: the paper's at 224 pixels, the nearest to 9,200 elsewhere."""

import pytest
import torch

from uic_plugin.evaluation.pooling import ProbePool
from uic_plugin.networks import AlexNet
from uic_plugin.networks.layers import layer_shapes

CONV = [f"conv{i}" for i in range(1, 6)]


def test_the_papers_dimensions():
    shapes = layer_shapes(AlexNet(), CONV, 224)
    pools = [ProbePool(shapes[name]) for name in CONV]
    assert [pool.num_features for pool in pools] == [9600, 9216, 9600, 9600, 9216]
    for name, pool in zip(CONV, pools, strict=True):
        assert pool(torch.rand(2, *shapes[name])).shape == (2, pool.num_features)


def test_conv5_is_pooled_as_by_the_network_itself():
    network = AlexNet().eval()
    conv5 = torch.rand(1, 256, 13, 13)
    assert torch.equal(ProbePool((256, 13, 13))(conv5), network.features[-1](conv5).flatten(1))


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((64, 4, 4), 1024),  # never enlarged
        ((2048, 7, 7), 8192),  # 2 x 2 is nearer than 3 x 3
        ((100, 96, 96), 10000),  # 10 x 10 is nearer than 9 x 9
        ((512, 3, 20), 512 * 3 * 6),  # the short side is not enlarged
        ((197, 192), 192 * 48),  # tokens
        ((4096,), 4096),
    ],
)
def test_nearest(shape, expected):
    pool = ProbePool(shape)
    assert pool.num_features == expected
    assert pool(torch.rand(2, *shape)).shape == (2, expected)


def test_values_by_hand():
    pool = ProbePool((1, 4, 4), target=4)
    image = torch.arange(16.0).view(1, 1, 4, 4)
    assert pool(image).tolist() == [[5, 7, 13, 15]]
    assert ProbePool((4, 1), target=2)(torch.tensor([[[1.0], [4], [3], [2]]])).tolist() == [[4, 3]]


def test_impossible():
    with pytest.raises(ValueError, match="at least 1"):
        ProbePool((3, 4, 4), 0)
    with pytest.raises(ValueError, match="no map, tokens or vector"):
        ProbePool((3, 4, 4, 4))
