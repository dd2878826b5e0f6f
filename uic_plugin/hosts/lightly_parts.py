"""Parts of UIC by lightly's conventions, for a loop of one's own: views and head."""

from __future__ import annotations

from typing import Any

import torch
from lightly.transforms.multi_view_transform import MultiViewTransform
from lightly.transforms.simclr_transform import SimCLRViewTransform

from uic_plugin.networks.heads import PseudoClassHead


class UICTransform(MultiViewTransform):
    """Makes the views of an image: lightly's SimCLR augmentation, one view by default.

    The paper's strong augmentation (section 5.1) is SimCLR's. UIC learns from one view of each
    image in an epoch; the next epoch's label comes from the same view.

    Args:
        input_size: side of the views in pixels.
        views: number of views, as the method's option `views` says.
        given: arguments of lightly's `SimCLRViewTransform`, as `cj_strength=0.5`.

    Raises:
        ValueError: for no view.
    """

    def __init__(self, input_size: int = 224, views: int = 1, **given: Any) -> None:
        if views < 1:
            raise ValueError(f"views must be at least 1, got {views}")
        view = SimCLRViewTransform(input_size=input_size, **given)
        super().__init__(transforms=[view] * views)


class UICHead(PseudoClassHead):
    """The classifier of pseudo classes, with the arguments of lightly's `SwaVPrototypes`.

    Args:
        input_dim: width of the features.
        num_pseudo_classes: K.
        hidden_dim: width of an MLP of two layers before it (section 5.2); 0: none. By name alone:
            lightly's projection heads have their hidden width in the second place.
    """

    def __init__(
        self, input_dim: int = 2048, num_pseudo_classes: int = 3000, *, hidden_dim: int = 0
    ) -> None:
        layers = 2 if hidden_dim else 0
        super().__init__(input_dim, num_pseudo_classes, mlp_layers=layers, mlp_width=hidden_dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        """Return logits (B, K) of features (B, D)."""
        return super().forward(x)[1]
