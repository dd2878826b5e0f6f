"""What the other methods of a recipe have in common under lightly."""

from __future__ import annotations

import copy
from typing import Any, ClassVar

import torch
from lightly.models.utils import update_momentum
from lightly.utils.scheduler import cosine_schedule
from torch import nn

from uic_plugin.hosts.hosted_method import HostedMethod
from uic_plugin.hosts.lightly_images import parts_of
from uic_plugin.hosts.lightly_module import LightlyModule, Training
from uic_plugin.hosts.lightly_network import build_backbone
from uic_plugin.hosts.online_classifier import keep_gradients_finite

_MOMENTUM = {"base_tau": 0.99, "final_tau": 1.0}


class Comparator(HostedMethod, LightlyModule):  # type: ignore[misc]  # of their own `log`
    """A backbone and a method's own parts, learned from two views of each image.

    Args:
        batch_size_per_device, num_classes, knn_k, knn_t: see `LightlyModule`.
        backbone, backbone_kwargs: see `build_backbone`.
        training: optimizer and learning rate.
        given: options of the method; `defaults` has their names.

    Attributes:
        defaults: options and their values.
        head: what the method puts on the backbone and learns.
        averaged: moving average of backbone and projector, of methods that have one.

    Raises:
        ValueError: for an unknown option.
    """

    defaults: ClassVar[dict[str, Any]] = {}
    has_average: ClassVar[bool] = False
    averaged: nn.Sequential | None

    def __init__(
        self,
        batch_size_per_device: int,
        num_classes: int,
        knn_k: int,
        knn_t: float,
        *,
        backbone: str,
        backbone_kwargs: dict[str, Any],
        training: Training,
        **given: Any,
    ) -> None:
        network, width = build_backbone(backbone, **backbone_kwargs)
        super().__init__(
            network,
            width,
            num_classes=max(num_classes, 1),
            batch_size=batch_size_per_device,
            knn_k=knn_k,
            knn_t=knn_t,
            training=training,
        )
        known = {**self.defaults, **(_MOMENTUM if self.has_average else {})}
        unknown = sorted(set(given) - set(known))
        if unknown:
            raise ValueError(
                f"{self.name} of lightly does not take {', '.join(unknown)}: it takes "
                f"{', '.join(known)}"
            )
        self.given = {**known, **given}
        keep_gradients_finite(self.online_classifier)
        self.head = self.make_head(width)
        self.averaged = None
        if self.has_average:
            # made anew: weight normalisation, which DINO's has, does not let itself be copied
            projector = self.make_head(width)["projector"]
            projector.load_state_dict(self.head["projector"].state_dict())
            parts = nn.Sequential(copy.deepcopy(network), projector)
            self.averaged = parts.requires_grad_(False)

    @property
    def momentum_backbone(self) -> nn.Module | None:
        """The moving average of the backbone, under solo-learn's name; None without one."""
        return None if self.averaged is None else self.averaged[0]

    def make_head(self, width: int) -> nn.ModuleDict:
        """Return the method's parts, `projector` among them, for features (B, width)."""
        raise NotImplementedError

    def own(self, views: list[torch.Tensor], features: list[torch.Tensor]) -> torch.Tensor:
        """Return the method's loss, a scalar.

        Args:
            views: (B, C, H, W) each.
            features: (B, D) of each view.
        """
        raise NotImplementedError

    @property
    def learnable_params(self) -> list[dict[str, Any]]:
        """The module's groups of parameters, and the head."""
        return [*super().learnable_params, {"name": "head", "params": self.head.parameters()}]

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        """Return the method's loss plus that of lightly's online classifier.

        Raises:
            ValueError: unless there are two views of each image.
        """
        index, views, annotations = parts_of(batch)
        if len(views) != 2:
            raise ValueError(
                f"{self.name} of lightly learns from two views of each image, the augmentation "
                f"makes {len(views)}: set augmentations.0.num_crops=2, and num_crops=0 of further "
                f"pipelines; small crops are solo-learn's alone"
            )
        if self.averaged is not None:
            self._move_average(self.averaged)
        outs = super().training_step([index, views, annotations], batch_idx)
        loss = self.own(views, outs["feats"])
        self.log_loss(loss)
        return self.with_online_loss(loss, outs["loss"], annotations)

    def own_logits(self, features: torch.Tensor) -> list[torch.Tensor]:
        """Return the logits (B, K) of each set of own classes; none for a method without classes.

        Args:
            features: (B, D) of the backbone.
        """
        return []

    def project(self, features: torch.Tensor) -> torch.Tensor:
        """Return projections (B, P) of features (B, D)."""
        projections: torch.Tensor = self.head["projector"](features)
        return projections

    @torch.no_grad()
    def teach(self, view: torch.Tensor) -> torch.Tensor:
        """Return projections (B, P) of a view by the moving average."""
        network, projector = self.averaged.children()  # type: ignore[union-attr]
        projections: torch.Tensor = projector(network(view).flatten(start_dim=1))
        return projections

    def _move_average(self, averaged: nn.Sequential) -> None:
        """Move the average towards the present weights."""
        steps = int(self.trainer.estimated_stepping_batches)
        done = min(self.trainer.global_step, steps)
        progress = getattr(self, "progress", None)  # of a run with a budget of seconds
        if progress is not None:
            steps = 1_000_000
            done = round(progress() * steps)
        momentum = cosine_schedule(
            step=done,
            max_steps=steps,
            start_value=self.given["base_tau"],
            end_value=self.given["final_tau"],
        )
        network, projector = averaged.children()
        update_momentum(self.backbone, network, m=momentum)
        update_momentum(self.head["projector"], projector, m=momentum)
