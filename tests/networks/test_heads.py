"""The classifier's numbers do not depend on mixed precision."""

import pytest
import torch

from uic_plugin.networks.heads import PseudoClassHead


@pytest.mark.parametrize("mlp_layers", [0, 2])
@pytest.mark.parametrize("cosine", [False, True])
def test_logits_in_mixed_precision_are_those_of_float32(cosine, mlp_layers):
    torch.manual_seed(0)
    head = PseudoClassHead(64, 100, cosine=cosine, mlp_layers=mlp_layers, mlp_width=32).eval()
    features = torch.randn(512, 64).bfloat16()  # as a backbone puts them out
    wanted = head(features.float())[1]
    with torch.autocast("cpu", torch.bfloat16):
        found = head(features)[1]
    assert found.dtype == torch.float32
    assert torch.equal(found, wanted)
    largest = found.topk(2, 1).values
    assert (largest[:, 0] > largest[:, 1]).all()  # no ties: the label is the class, not its number


def test_two_percent_of_bfloat16_logits_tie():
    """Why the head leaves mixed precision."""
    torch.manual_seed(0)
    logits = torch.randn(2048, 3000).bfloat16()
    largest = logits.topk(2, 1).values
    assert (largest[:, 0] == largest[:, 1]).float().mean() > 0.02


def test_a_head_in_half_precision_stays_in_it():
    """`precision=bf16-true` makes the weights bfloat16."""
    head = PseudoClassHead(8, 5).bfloat16()
    assert head(torch.randn(3, 8))[1].dtype == torch.bfloat16


@pytest.mark.parametrize("cosine", [False, True])
def test_one_head_computes_in_float32_too(cosine):
    head = PseudoClassHead(8, 5, cosine=cosine, heads=2)
    embeddings = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", torch.bfloat16):
        second = head.one_head(embeddings, 1)
    assert second.dtype == torch.float32
    torch.testing.assert_close(second, head.per_head(head(embeddings)[1])[1])
