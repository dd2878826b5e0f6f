"""Unsupervised Image Classification (Chen et al., 2020).

1. Every image has a label; it does not change within an epoch.
2. One view of each image, class-balanced order, cross-entropy against the labels.
3. The argmax of the same logits is the image's label in the next epoch.
4. An empty class gets half of the largest one.
"""

from __future__ import annotations

import torch

from uic_plugin.methods.pseudo_label import PseudoLabelMethod


class UIC(PseudoLabelMethod):
    """UIC without a host; an adapter in `uic_plugin.hosts` puts a `BaseMethod` behind it."""

    def assign(self, logits: torch.Tensor) -> torch.Tensor:
        """The classifier's own answer (Eq. 5)."""
        return logits.argmax(1)
