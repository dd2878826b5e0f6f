"""Soft labels of a batch that fill all classes equally: by Sinkhorn-Knopp, or by a price per class.

    shares = sinkhorn_shares([logits], epsilon=0.05)            # (B, K), every class gets B / K
    shares = priced_shares([logits], prices, epsilon=0.05)      # the same, over many batches
    prices = moved_prices(prices, shares, rate=0.1)

Both solve the same transport: each row is an image that gives away one label, each class gets
equally much, and labels cost least where the logits are highest, with an entropy of weight epsilon
that makes them soft. Sinkhorn-Knopp solves it within the batch, which has to be about as large as
the number of classes. Prices are the dual variables of the classes' constraint: they are kept from
step to step and move by the gradient of the dual, so that batches may be small.

Sources: SwAV (Caron et al., 2020, section 3.1), three iterations on the batch; CoKe (Qian et al.,
2022, section 3.2), dual variables of classes across batches, there for hard labels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from uic_plugin.ranks import Reduce, alone

_TINY = 1e-30


@torch.no_grad()
def sinkhorn_shares(
    logits: Sequence[torch.Tensor],
    *,
    epsilon: float = 0.05,
    iterations: int = 3,
    total: Reduce = alone,
) -> list[torch.Tensor]:
    """Return soft labels by a few iterations of Sinkhorn-Knopp on the batch.

    Args:
        logits: (B, K) of each head, K may differ; of this rank's images.
        epsilon: divides the logits, above 0; the smaller, the harder the labels.
        iterations: times that classes and then images are normalised, from 0.
        total: sum over ranks; the batch is that of all ranks.

    Returns:
        (B, K) float32 for each head, rows sum to 1.
    """
    shares = [(part.float() / epsilon).softmax(1) for part in logits]
    sizes = [part.shape[1] for part in logits]
    for _ in range(iterations):
        sums = total(torch.cat([part.sum(0) for part in shares])).split(sizes)
        for number, own in enumerate(sums):
            filled = shares[number] / own.clamp_min(_TINY)
            shares[number] = filled / filled.sum(1, keepdim=True)
    return shares


@torch.no_grad()
def priced_shares(
    logits: Sequence[torch.Tensor], prices: torch.Tensor, *, epsilon: float = 0.05
) -> list[torch.Tensor]:
    """Return soft labels at given prices of the classes.

    Args:
        logits: (B, K) of each head.
        prices: (sum of K,) of all heads' classes, in units of `logits / epsilon`.
        epsilon: see `sinkhorn_shares`.

    Returns:
        (B, K) float32 for each head, rows sum to 1.
    """
    sizes = [part.shape[1] for part in logits]
    return [
        (part.float() / epsilon - own).softmax(1)
        for part, own in zip(logits, prices.split(sizes), strict=True)
    ]


@torch.no_grad()
def moved_prices(
    prices: torch.Tensor,
    shares: Sequence[torch.Tensor],
    *,
    rate: float,
    total: Reduce = alone,
) -> torch.Tensor:
    """Return prices after a step up the dual: a class that got too much becomes dearer.

    The step of a class is `rate * (K * its share of the batch - 1)`: 0 for a class that gets 1 / K,
    and 0 in expectation where it gets 1 / K over many batches, however small they are. A head's
    prices keep their sum.

    Args:
        prices: (sum of K,) as they were.
        shares: (B, K) of each head, see `priced_shares`.
        rate: length of the step, above 0.
        total: sum over ranks.
    """
    rows = prices.new_full((1,), float(len(shares[0])))
    sums = total(torch.cat([rows, *(part.sum(0) for part in shares)]))
    scale = torch.cat([prices.new_full((part.shape[1],), part.shape[1]) for part in shares])
    return prices + rate * (scale * sums[1:] / sums[0] - 1)
