"""Shapes by hand, and what the host asks of a network."""

import pytest
import torch

from uic_plugin.networks import Conv4, PseudoClassHead


@pytest.mark.parametrize("size", [8, 16, 32, 33, 84])
def test_conv4_takes_any_size(size):
    network = Conv4(width=8).eval()
    assert network(torch.zeros(2, 3, size, size)).shape == (2, 64) == (2, network.num_features)


def test_conv4_has_the_parameters_of_four_layers():
    sizes = [sum(p.numel() for p in block.parameters()) for block in Conv4(width=2).children()]
    assert sizes[:4] == [3 * 2 * 9 + 4, 2 * 4 * 9 + 8, 4 * 8 * 9 + 16, 8 * 16 * 9 + 32]


def test_linear_head_is_one_layer():
    head = PseudoClassHead(4, 7)
    features = torch.randn(3, 4)
    embeddings, logits = head(features)
    assert embeddings is features
    assert torch.equal(logits, head.classifier(features))


def test_mlp_head():
    head = PseudoClassHead(4, 7, mlp_layers=2, mlp_width=5)
    embeddings, logits = head(torch.randn(3, 4))
    assert embeddings.shape == (3, 5)
    assert (embeddings >= 0).all()  # ends in ReLU
    assert logits.shape == (3, 7)
    names = [type(layer).__name__ for layer in head.mlp]
    assert names == ["Linear", "BatchNorm1d", "ReLU"] * 2
    plain = PseudoClassHead(4, 7, mlp_layers=1, mlp_width=5, batch_norm=False)
    assert [type(layer).__name__ for layer in plain.mlp] == ["Linear", "ReLU"]
