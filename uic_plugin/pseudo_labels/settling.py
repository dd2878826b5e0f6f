"""Settle a cosine classifier: its directions become the means of the classes that they make."""

from __future__ import annotations

import torch
import torch.nn.functional as F

_BLOCK = 8192  # embeddings whose cosines are held at once


def settle(embeddings: torch.Tensor, directions: torch.Tensor, rounds: int) -> torch.Tensor:
    """Return the directions after some rounds of k-means on the unit sphere.

    A round gives every embedding to the direction with which it has the largest cosine, and turns
    each direction to the mean of what it has been given. Training ends with directions that are
    near such means: gradients of balanced soft labels stop short of them (ours; spherical k-means:
    Dhillon and Modha, 2001).

    Args:
        embeddings: (N, D).
        directions: (K, D), the rows of the classifier.
        rounds: at most so many; fewer once no embedding changes its class.

    Returns:
        (K, D) of unit length; a direction without embeddings stays as it is.

    Raises:
        ValueError: for embeddings of another width.
    """
    if embeddings.shape[1] != directions.shape[1]:
        raise ValueError(
            f"embeddings of width {embeddings.shape[1]} do not fit directions of width "
            f"{directions.shape[1]}"
        )
    embeddings, directions = F.normalize(embeddings, dim=1), F.normalize(directions, dim=1)
    before = None
    for _ in range(rounds):
        classes = torch.cat([(b @ directions.T).argmax(1) for b in embeddings.split(_BLOCK)])
        if before is not None and torch.equal(classes, before):
            break
        sums = torch.zeros_like(directions).index_add_(0, classes, embeddings)
        has_any = torch.bincount(classes, minlength=len(directions)) > 0
        directions = torch.where(has_any[:, None], F.normalize(sums, dim=1), directions)
        before = classes
    return directions
