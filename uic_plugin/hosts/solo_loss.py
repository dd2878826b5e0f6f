"""The host's DeepCluster v2 has no clusters in its first epoch: its loss is NaN there, and here 0.

The mean over no image is NaN. The gradient is 0 either way; but a loss that is NaN looks like a
training that has diverged, and a guard that stops those would stop this one at its first step.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps

import solo.methods.deepclusterv2 as module
import torch

Loss = Callable[..., torch.Tensor]


def without_clusters(loss: Loss) -> Loss:
    """Return the loss with 0 for a batch in which no image has a cluster, -1 being none.

    Args:
        loss: takes logits (P, V, B, K) and clusters (P, B) of P sets of prototypes.
    """

    @wraps(loss)
    def finite(
        outputs: torch.Tensor, assignments: torch.Tensor, *more: float, **named: float
    ) -> torch.Tensor:
        none = (assignments < 0).all()  # on the device: nobody waits for it
        own = loss(outputs, torch.where(none, 0, assignments), *more, **named)
        return torch.where(none, outputs.sum() * 0.0, own)

    return finite


def fix_deepclusterv2() -> None:
    """Replace the host's loss, once."""
    loss = module.deepclusterv2_loss_func
    if not hasattr(loss, "__wrapped__"):
        module.deepclusterv2_loss_func = without_clusters(loss)
