"""No training at all: the lower anchor of the paper's tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from uic_plugin.methods.options import MethodOptions


class Untrained:
    """`method=random`: the network keeps the weights that its seed gives it."""

    name: ClassVar[str] = "random"
    options_class: ClassVar[type[MethodOptions]] = MethodOptions
    options: Any

    @classmethod
    def make_options(cls, given: Mapping[str, Any], num_classes: int) -> Any:
        """Options from a recipe."""
        return cls.options_class.from_mapping(given, cls.name)

    def build_head(self, features_dim: int, options: MethodOptions, seed: int) -> None:
        """Nothing to add."""
        self.options = options

    def attach_images(self, num_samples: int) -> None:
        """Nothing to remember."""

    def configure_optimizers(self) -> None:
        """None: nothing moves."""

    def training_step(self, batch: Any, batch_idx: int) -> None:
        """Leave the images unseen, so that BatchNorm keeps its first statistics too."""
