"""DINO of solo-learn 1.0.2 under Lightning 1.9: two methods of one name.

The host clips with `clip_gradients(clip)`, a name that Lightning took for a hook of its own in 1.6:
`clip_gradients(optimizer, gradient_clip_val=..., gradient_clip_algorithm=...)`.
"""

from __future__ import annotations

from typing import Any

from solo.methods.dino import DINO
from torch.optim import Optimizer

from uic_plugin.hosts.lightning import pl


def fix_dino() -> None:
    """Let DINO's `clip_gradients` answer both callers, once."""
    clip_by_layer = DINO.clip_gradients
    if hasattr(clip_by_layer, "answers_both"):
        return

    def clip_gradients(self: Any, first: float | Optimizer, *more: Any, **named: Any) -> None:
        if isinstance(first, Optimizer):  # Lightning
            pl.LightningModule.clip_gradients(self, first, *more, **named)
        else:
            clip_by_layer(self, first)

    clip_gradients.answers_both = True  # type: ignore[attr-defined]
    DINO.clip_gradients = clip_gradients
