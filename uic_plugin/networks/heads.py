"""Heads: from features to logits of pseudo classes."""

from __future__ import annotations

from collections.abc import Sequence

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
    its last layer and the linear classifier would act as one. Before a cosine classifier, a last
    linear layer of `mlp_output` makes it a projector (SwAV: Caron et al., 2020, section 4).

    It computes in the precision of its own weights, float32 in mixed precision: labels are the
    argmax of the logits, and in bfloat16 a few percent of all rows have two equal maxima.

    Args:
        in_features: width of the features.
        num_classes: K.
        mlp_layers: layers of the MLP, 0 for none.
        mlp_width: width of each layer of the MLP.
        batch_norm: BatchNorm after each layer of the MLP.
        mlp_output: width of a last layer of the MLP, without BatchNorm and ReLU; 0 for none.
        cosine: whether the logits are cosines.
        heads: number of classifiers of K classes on the same embeddings.
        more_heads: number of classes of each further classifier.

    Attributes:
        sizes: number of classes of each of the H classifiers.
    """

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        mlp_layers: int = 0,
        mlp_width: int = 2048,
        batch_norm: bool = True,
        mlp_output: int = 0,
        cosine: bool = False,
        heads: int = 1,
        more_heads: Sequence[int] = (),
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for _ in range(mlp_layers):
            layers.append(nn.Linear(in_features, mlp_width, bias=not batch_norm))
            if batch_norm:
                layers.append(nn.BatchNorm1d(mlp_width))
            layers.append(nn.ReLU())
            in_features = mlp_width
        if mlp_layers and mlp_output:
            layers.append(nn.Linear(in_features, mlp_output))
            in_features = mlp_output
        self.sizes = (*(num_classes,) * heads, *more_heads)
        self.num_classes, self.heads = num_classes, len(self.sizes)
        self.embedding_dim = in_features
        self.mlp = nn.Sequential(*layers)
        kind = CosineClassifier if cosine else nn.Linear
        self.classifier = kind(in_features, sum(self.sizes))

    def forward(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the embeddings (B, D) that the classifiers read, and logits (B, sum of K)."""
        with torch.autocast(features.device.type, enabled=False):
            embeddings = self.mlp(features.to(self.classifier.weight.dtype))
            return embeddings, self.classifier(embeddings)

    def per_head(self, logits: torch.Tensor) -> list[torch.Tensor]:
        """Split logits (B, sum of K) into one (B, K) for each of H heads."""
        return list(logits.split(self.sizes, dim=1))

    def one_head(self, embeddings: torch.Tensor, number: int) -> torch.Tensor:
        """Return the logits (B, K) of one of the classifiers."""
        first = sum(self.sizes[:number])
        part = slice(first, first + self.sizes[number])
        weight, bias = self.classifier.weight[part], self.classifier.bias
        with torch.autocast(embeddings.device.type, enabled=False):
            embeddings = embeddings.to(weight.dtype)
            if bias is None:  # cosines
                return F.linear(F.normalize(embeddings, dim=1), F.normalize(weight, dim=1))
            return F.linear(embeddings, weight, bias[part])
