"""Supervised training in the same harness: the upper anchor of the paper's tables.

The annotations are the labels and never change; every image once an epoch; one view of each.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from uic_plugin.methods.kept_labels import LabelPlan
from uic_plugin.methods.options import SupervisedOptions
from uic_plugin.methods.pseudo_label import PseudoLabelMethod
from uic_plugin.ranks import RankInfo


class Supervised(PseudoLabelMethod):
    """Cross-entropy against annotations."""

    name = "supervised"
    options_class = SupervisedOptions

    @classmethod
    def make_options(cls, given: Mapping[str, Any], num_classes: int) -> Any:
        """Return the recipe's options, with as many classes as are annotated."""
        own = {**given, "num_pseudo_classes": max(num_classes, 2), "heads": 1}
        return super().make_options(own, num_classes)

    @property
    def plan(self) -> LabelPlan:
        """Train annotated classes as often as they occur."""
        return LabelPlan(is_balanced=False)

    def attach(
        self,
        num_samples: int,
        fingerprint: str | None,
        annotations: np.ndarray | None,
        *,
        fixed_labels: torch.Tensor | None = None,
        rank: RankInfo | None = None,
    ) -> None:
        """Make the bank of the annotations.

        Raises:
            ValueError: if images have none.
        """
        if annotations is None or (np.asarray(annotations) < 0).any():
            raise ValueError(
                "supervised needs an annotation of every image: data.train_path with one "
                "subfolder per class, and data.no_labels=false"
            )
        labels = torch.from_numpy(np.asarray(annotations)).long()
        super().attach(num_samples, fingerprint, None, fixed_labels=labels, rank=rank)
