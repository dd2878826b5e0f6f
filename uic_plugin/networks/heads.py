"""Heads: from features to logits of pseudo classes."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


class CosineClassifier(nn.Linear):
    """Cosines between embeddings and one direction for each class, in [-1, 1]."""

    def __init__(self, in_features: int, num_classes: int) -> None:
        super().__init__(in_features, num_classes, bias=False)

    def forward(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Return the cosines (B, K) of embeddings (B, D)."""
        return F.linear(F.normalize(embeddings, dim=1), F.normalize(self.weight, dim=1))


class PseudoClassHead(nn.Module):
    """A classifier over K pseudo classes, optionally behind an MLP; or several side by side.

    The MLP (UIC, section 5.2: "as proposed by SimCLR", kept for probing) ends in ReLU: without it,
    its last layer and the linear classifier would act as one.

    It computes in the precision of its own weights, float32 in mixed precision: labels are the
    argmax of the logits, and in bfloat16 a few percent of all rows have two equal maxima.

    Args:
        in_features: width of the features.
        num_classes: K.
        mlp_layers: layers of the MLP, 0 for none.
        mlp_width: width of each layer of the MLP.
        batch_norm: BatchNorm after each layer of the MLP.
        cosine: whether the logits are cosines.
        heads: number H of classifiers on the same embeddings.
    """

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        mlp_layers: int = 0,
        mlp_width: int = 2048,
        batch_norm: bool = True,
        cosine: bool = False,
        heads: int = 1,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for _ in range(mlp_layers):
            layers.append(nn.Linear(in_features, mlp_width, bias=not batch_norm))
            if batch_norm:
                layers.append(nn.BatchNorm1d(mlp_width))
            layers.append(nn.ReLU())
            in_features = mlp_width
        self.num_classes, self.heads = num_classes, heads
        self.embedding_dim = in_features
        self.mlp = nn.Sequential(*layers)
        kind = CosineClassifier if cosine else nn.Linear
        self.classifier = kind(in_features, heads * num_classes)

    def forward(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the embeddings (B, D) that the classifier reads, and its logits (B, H * K)."""
        with torch.autocast(features.device.type, enabled=False):
            embeddings = self.mlp(features.to(self.classifier.weight.dtype))
            return embeddings, self.classifier(embeddings)

    def per_head(self, logits: torch.Tensor) -> list[torch.Tensor]:
        """Split logits (B, H * K) into one (B, K) for each of H heads."""
        return list(logits.split(self.num_classes, dim=1))

    def one_head(self, embeddings: torch.Tensor, number: int) -> torch.Tensor:
        """Return the logits (B, K) of one of the classifiers."""
        part = slice(number * self.num_classes, (number + 1) * self.num_classes)
        weight, bias = self.classifier.weight[part], self.classifier.bias
        if bias is None:  # cosines
            return F.linear(F.normalize(embeddings, dim=1), F.normalize(weight, dim=1))
        return F.linear(embeddings, weight, bias[part])
