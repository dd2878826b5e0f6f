"""From features to pseudo classes."""

from __future__ import annotations

import torch
from torch import nn


class PseudoClassHead(nn.Module):
    """A linear classifier over K pseudo classes, optionally behind an MLP.

    The MLP (UIC, section 5.2: "as proposed by SimCLR", kept for probing) ends in ReLU: a linear
    classifier follows, and two linear layers in a row would be one.

    Args:
        in_features: width of the features.
        num_classes: K.
        mlp_layers: layers of the MLP, 0 for the linear head.
        mlp_width: width of each layer of the MLP.
        batch_norm: BatchNorm after each layer of the MLP.
    """

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        mlp_layers: int = 0,
        mlp_width: int = 2048,
        batch_norm: bool = True,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for _ in range(mlp_layers):
            layers.append(nn.Linear(in_features, mlp_width, bias=not batch_norm))
            if batch_norm:
                layers.append(nn.BatchNorm1d(mlp_width))
            layers.append(nn.ReLU())
            in_features = mlp_width
        self.mlp = nn.Sequential(*layers)
        self.classifier = nn.Linear(in_features, num_classes)

    def forward(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Embeddings (B, D) that the classifier reads, and its logits (B, K)."""
        embeddings = self.mlp(features)
        return embeddings, self.classifier(embeddings)
