"""What a method of ours needs under any host that trains with Lightning."""

from __future__ import annotations

from functools import partial
from typing import Any

from uic_plugin.hosts.guards import FiniteLoss
from uic_plugin.hosts.online_classifier import clip_apart
from uic_plugin.hosts.resume import resume_labels
from uic_plugin.methods.base import HostMethod, OwnMethod
from uic_plugin.networks.weights import uncompiled
from uic_plugin.ranks import world_size


class HostedMethod(OwnMethod, HostMethod):
    """Stands before a host's module; a class of `uic_plugin.methods` stands before it.

    The host's online classifier is its `classifier`.
    """

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

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take over the labels of a checkpoint, and have Lightning resume at their step."""
        super().on_load_checkpoint(checkpoint)
        checkpoint["state_dict"] = uncompiled(checkpoint["state_dict"])
        resume_labels(self, checkpoint)
