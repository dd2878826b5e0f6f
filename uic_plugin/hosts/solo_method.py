"""What a method of ours needs under either line of solo-learn, once for both."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from uic_plugin.hosts.guards import FiniteLoss
from uic_plugin.hosts.online_classifier import clip_apart, keep_gradients_finite
from uic_plugin.hosts.resume import resume_labels
from uic_plugin.hosts.schedules import with_own_schedule
from uic_plugin.hosts.solo_knn import collect_only
from uic_plugin.methods.base import HostMethod, OwnMethod
from uic_plugin.networks.weights import uncompiled
from uic_plugin.ranks import world_size

if TYPE_CHECKING:
    from uic_plugin.methods.options import MethodOptions


class SoloMethod(OwnMethod, HostMethod):
    """Stands before the host's `BaseMethod`; a class of `uic_plugin.methods` stands before it."""

    head: nn.Module

    def finish_building(self, options: MethodOptions, seed: int) -> None:
        """Add the method's head to what the host has built, and mend the host's online parts."""
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

    def log(self, name: str, value: Any, **how: Any) -> None:
        """Log as Lightning does, but let ranks wait for each other at the end of an epoch alone.

        With `sync_dist` Lightning averages over ranks in every step too, each time behind a
        barrier. Here the value of a step is that of the rank that logs it; names are the same.
        """
        is_forked = how.get("on_step") is not False and how.get("on_epoch") is True
        if not (is_forked and how.get("sync_dist") and world_size() > 1):
            super().log(name, value, **how)
            return
        bar = how.pop("prog_bar", False)
        of_step = {**how, "on_epoch": False, "on_step": True, "sync_dist": False}
        of_epoch = {**how, "on_step": False}
        super().log(f"{name}_step", value, **of_step, prog_bar=bar)
        super().log(f"{name}_epoch", value, **of_epoch, prog_bar=bar)
        super().log(name, value, **{**of_epoch, "logger": False})

    def configure_callbacks(self) -> list[Any]:
        """Stop at a loss that is NaN or infinite, in whatever script."""
        return [*super().configure_callbacks(), FiniteLoss()]

    def configure_gradient_clipping(self, *args: Any, **kwargs: Any) -> None:
        """Clip what the method trains and the host's online classifier apart."""
        clip = partial(super().configure_gradient_clipping, *args, **kwargs)
        clip_apart(clip, self, self.classifier)

    def configure_optimizers(self) -> Any:
        """Return the host's optimizer, with a schedule of ours where the recipe asks for one."""
        return with_own_schedule(self, super().configure_optimizers)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take over the labels of a checkpoint, and have Lightning resume at their step."""
        super().on_load_checkpoint(checkpoint)
        checkpoint["state_dict"] = uncompiled(checkpoint["state_dict"])
        resume_labels(self, checkpoint)
