"""The finest classes there are: every image of a step is a class of its own.

No classifier holds a row for it: the direction of an image's class is the embedding of its other
view, so nothing about an image is stored. All classes are equally large by construction.

Source: instance discrimination as in SimCLR (Chen et al., 2020, Eq. 1), whose loss this is.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from uic_plugin.ranks import all_rows_with_gradient, rank_and_world


def image_class_loss(embeddings: torch.Tensor, *, temperature: float) -> torch.Tensor:
    """Return the mean cross-entropy of finding an image's other view among all views of the step.

    Args:
        embeddings: (2 * B, D), the first views of B different images above their second ones; the
            views of other ranks, equally many, are told from them, too.
        temperature: divides the cosines, above 0.

    Returns:
        A scalar, ln(4 * B - 1) on two ranks for a guess.
    """
    with torch.autocast(embeddings.device.type, enabled=False):
        own = F.normalize(embeddings.float(), dim=1)
        everyone = all_rows_with_gradient(own)
        cosines = own @ everyone.T
        rows = torch.arange(len(own), device=own.device)
        first = rank_and_world()[0] * len(own)
        cosines[rows, first + rows] = -torch.inf  # a view is not told from itself
        return F.cross_entropy(cosines / temperature, first + rows.roll(len(own) // 2))
