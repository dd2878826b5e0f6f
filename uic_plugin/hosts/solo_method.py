"""What a method of ours needs under either line of solo-learn, once for both."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from uic_plugin.hosts.hosted_method import HostedMethod
from uic_plugin.hosts.online_classifier import keep_gradients_finite
from uic_plugin.hosts.schedules import with_own_schedule
from uic_plugin.hosts.solo_knn import collect_only

if TYPE_CHECKING:
    from uic_plugin.methods.options import MethodOptions


class SoloMethod(HostedMethod):
    """Stands before the host's `BaseMethod`; a class of `uic_plugin.methods` stands before it."""

    head: nn.Module

    def finish_building(self, options: MethodOptions, seed: int) -> None:
        """Add the method's head to what the host has built, and fix the host's online parts."""
        collect_only(self)
        keep_gradients_finite(self.classifier)
        self.build_head(self.features_dim, options, seed)

    @property
    def learnable_params(self) -> list[dict[str, Any]]:
        """The host's groups of parameters, and the head: one optimizer for all."""
        return [*super().learnable_params, {"name": "head", "params": self.head.parameters()}]

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        """Return the host's outputs; its online k-NN is fed without a wait for the device."""
        feeds_knn, self.knn_eval = self.knn_eval, False
        try:
            outs = super().training_step(batch, batch_idx)
        finally:
            self.knn_eval = feeds_knn
        if feeds_knn:
            features = torch.cat(outs["feats"]).detach()
            targets = batch[2].repeat(len(outs["feats"]))
            self.knn(train_features=features, train_targets=targets)
        return outs

    def configure_optimizers(self) -> Any:
        """Return the host's optimizer, with a schedule of ours where the recipe asks for one."""
        return with_own_schedule(self, super().configure_optimizers)
