"""Unsupervised Image Classification (Chen et al., 2020).

1. Every image has a label; it does not change within an epoch.
2. One view of each image, class-balanced order, cross-entropy against the labels.
3. The argmax of the same logits is the image's label in the next epoch.
4. An empty class gets half of the largest one.

All but 3 is the template's (`pseudo_label.py`), with the order, the bank and the fixer of
`uic_plugin.pseudo_labels`. Variants stand beside, in `uic_variants.py` and `uic_step_labels.py`.
"""

from __future__ import annotations

import torch

from uic_plugin.methods.kept_labels import LabelPlan
from uic_plugin.methods.pseudo_label import PseudoLabelMethod
from uic_plugin.methods.uic_options import UICOptions


class UIC(PseudoLabelMethod):
    """UIC without a host; an adapter in `uic_plugin.hosts` puts a `BaseMethod` behind it."""

    name = "uic"
    options_class = UICOptions

    @property
    def plan(self) -> LabelPlan:
        """Return the paper's plan, or one without its two kinds of balance."""
        options = self.options
        return LabelPlan(
            initial="balanced" if options.label_init == "balanced" else "random",
            is_balanced=options.balanced_sampling,
            fixes_empty_classes=options.fix_empty_classes,
        )

    def label_images(self, index: torch.Tensor, logits: torch.Tensor) -> None:
        """Stage the classifier's own answers as the next labels of their images (Eq. 5)."""
        self.observe(logits)
        labels = [part.argmax(1) for part in self.head.per_head(logits)]
        self.stage(index, torch.stack(labels, 1))
