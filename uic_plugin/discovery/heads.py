"""Many classifiers in parallel, computed by one matrix product.

    bank = HeadBank.from_centroids([centroids_a, centroids_b], temperature=0.1)
    logits = bank(features)                                    # (B, H, K)

A head is initialised as a k-means clustering: its logits are the cosines between an image and the
centroids, divided by the temperature. An MLP is added to these cosines and initialised with zeros,
so that it too starts from the clustering.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import torch
from torch import nn

_NO_CLASS = -1e4  # logit of classes that a head with fewer classes does not have


class HeadBank(nn.Module):
    """H classifiers of at most K classes on D features.

    Args:
        dim: D.
        classes: classes of each head, from 1; K is the highest of them.
        temperature: divides the logits.
        hidden: width of each head's own hidden layer; 0 for linear heads.
        generator: for the initial weights of the hidden layers.
    """

    absent: torch.Tensor

    def __init__(
        self,
        dim: int,
        classes: Sequence[int],
        *,
        temperature: float,
        hidden: int = 0,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.classes, self.temperature, self.hidden = list(classes), temperature, hidden
        heads, most = len(self.classes), max(self.classes)
        self.weight = nn.Parameter(torch.zeros(dim, heads, most))
        self.bias = nn.Parameter(torch.zeros(heads, most))
        numbers = torch.arange(most)
        self.register_buffer("absent", numbers >= torch.tensor(self.classes)[:, None])
        if hidden:
            first = torch.randn(dim, heads, hidden, generator=generator) / math.sqrt(dim)
            self.first = nn.Parameter(first)
            self.first_bias = nn.Parameter(torch.zeros(heads, hidden))
            self.second = nn.Parameter(torch.zeros(heads, hidden, most))

    @classmethod
    def from_centroids(
        cls,
        centroids: Sequence[torch.Tensor],
        *,
        temperature: float,
        hidden: int = 0,
        generator: torch.Generator | None = None,
    ) -> HeadBank:
        """Return heads that answer as k-means does, from one (K, D) of unit rows per head."""
        bank = cls(
            centroids[0].shape[1],
            [len(rows) for rows in centroids],
            temperature=temperature,
            hidden=hidden,
            generator=generator,
        )
        with torch.no_grad():
            for head, rows in enumerate(centroids):
                bank.weight[:, head, : len(rows)] = rows.T
        return bank

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return logits (B, H, K) of features (B, D); those of absent classes are far below."""
        dim, heads, most = self.weight.shape
        scaled = features / self.temperature
        logits = (scaled @ self.weight.view(dim, heads * most)).view(-1, heads, most) + self.bias
        if self.hidden:
            inner = (features @ self.first.view(dim, -1)).view(-1, heads, self.hidden)
            inner = torch.relu(inner + self.first_bias) / self.temperature
            logits = logits + torch.einsum("bhm,hmk->bhk", inner, self.second)
        if min(self.classes) < most:
            logits = logits.masked_fill(self.absent, _NO_CLASS)
        return logits

    def some(self, heads: Sequence[int]) -> HeadBank:
        """Return a bank of some of the heads; its K is the highest of theirs."""
        chosen = torch.as_tensor(list(heads))
        classes = [self.classes[head] for head in chosen.tolist()]
        most = max(classes)
        bank = HeadBank(
            self.weight.shape[0], classes, temperature=self.temperature, hidden=self.hidden
        )
        with torch.no_grad():
            bank.weight.copy_(self.weight[:, chosen, :most])
            bank.bias.copy_(self.bias[chosen, :most])
            if self.hidden:
                bank.first.copy_(self.first[:, chosen])
                bank.first_bias.copy_(self.first_bias[chosen])
                bank.second.copy_(self.second[chosen, :, :most])
        return bank

    def reorder(self, orders: torch.Tensor) -> None:
        """Renumber the classes of this bank: class `orders[h, k]` of head h becomes k.

        Args:
            orders: (H, K) old number of each new one; all heads must have K classes.
        """
        with torch.no_grad():
            self.weight.copy_(self.weight.gather(2, orders.expand_as(self.weight)))
            self.bias.copy_(self.bias.gather(1, orders))
            if self.hidden:
                index = orders[:, None].expand_as(self.second)
                self.second.copy_(self.second.gather(2, index))

    def frozen_copy(self) -> HeadBank:
        """Return a copy without gradients: a teacher."""
        return copy.deepcopy(self).requires_grad_(False)
