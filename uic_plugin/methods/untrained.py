"""No training at all: the lower anchor of the paper's tables."""

from __future__ import annotations

from typing import Any

from uic_plugin.methods.base import OwnMethod
from uic_plugin.methods.options import MethodOptions


class Untrained(OwnMethod):
    """`method=random`: the network keeps the weights that its seed gives it."""

    name = "random"

    def build_head(self, features_dim: int, options: MethodOptions, seed: int) -> None:
        """Add nothing."""
        self.options = options

    def configure_optimizers(self) -> None:
        """Return none: nothing moves."""

    def training_step(self, batch: Any, batch_idx: int) -> None:
        """Leave the images unseen, so that BatchNorm keeps its first statistics too."""
