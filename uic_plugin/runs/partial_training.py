"""Training that starts from a pretrained network: frozen layers, layer-wise learning rates."""

from __future__ import annotations

from typing import Any

from omegaconf import DictConfig
from torch import nn

from uic_plugin.hosts import backbone_of, load_host
from uic_plugin.hosts.lightning import pl
from uic_plugin.methods.base import HostMethod
from uic_plugin.networks.freezing import NONE, check_freeze, freeze_layers, layer_groups


def check_partial_training(cfg: DictConfig) -> None:
    """Check a recipe's `freeze`, `layer_decay` and `pretrained`.

    Raises:
        ValueError: for a value that cannot be.
    """
    check_freeze(cfg.get("freeze", NONE))
    decay = cfg.get("layer_decay", 1)
    if type(decay) not in (int, float) or not 0 < decay <= 1:
        raise ValueError(f"layer_decay must be a number above 0 and at most 1, got {decay!r}")
    pretrained = cfg.get("pretrained", False)
    if type(pretrained) is not bool:
        raise ValueError(f"pretrained must be true or false, got {pretrained!r}")
    if pretrained and cfg.get("weights"):
        raise ValueError(
            f"pretrained=true and weights={cfg.weights} are two starts: leave one of them out"
        )


def prepare_partial_training(cfg: DictConfig, method: HostMethod) -> list[pl.Callback]:
    """Freeze layers of a method's network and divide its learning rate by depth.

    Args:
        cfg: the prepared recipe.
        method: of the recipe, with its first weights.

    Returns:
        Callbacks that the training needs for it.

    Raises:
        ValueError: for more frozen layers than the network has.
    """
    decay = cfg.get("layer_decay", 1)
    if decay < 1:
        with_layer_decay(method, decay)
    freeze = cfg.get("freeze", NONE)
    frozen = freeze_layers(backbone_of(method), freeze)
    momentum = getattr(method, f"momentum_{load_host().BACKBONE_KEY}", None)
    average = getattr(method, "label_network", None)
    for copy in (momentum, None if average is None else average["network"]):
        if copy is not None:  # a moving average of the network, equal to it where it is frozen
            frozen += freeze_layers(copy, freeze)
    return [FrozenLayers(frozen)] if frozen else []


class FrozenLayers(pl.Callback):
    """Keeps frozen layers in eval mode in every training step, their BatchNorm's statistics too.

    Lightning sets all of a method to training mode at the start and after a validation.
    """

    def __init__(self, frozen: list[nn.Module]) -> None:
        self.frozen = frozen

    def on_train_batch_start(self, *_: Any) -> None:
        """Set the layers to eval mode, if somebody has changed it."""
        for module in self.frozen:
            if module.training:
                module.training = False


def with_layer_decay(method: HostMethod, decay: float) -> None:
    """Give a method's network a learning rate that falls from layer to layer, in place.

    Args:
        method: of the host, or ours.
        decay: factor from one layer to the one before it, in (0, 1].
    """
    method.layer_decay = decay  # type: ignore[assignment]
    kind = type(method)
    method.__class__ = type(kind.__name__, (_LayerDecay, kind), {"__module__": kind.__module__})


class _LayerDecay:
    """Goes before a method's own class, whose groups of parameters it divides further."""

    layer_decay: float
    lr: float

    @property
    def learnable_params(self) -> list[dict[str, Any]]:
        """The method's groups, with one for each depth in the place of the backbone's."""
        groups: list[dict[str, Any]] = []
        key = load_host().BACKBONE_KEY
        for group in super().learnable_params:  # type: ignore[misc]
            if group.get("name") != key:
                groups.append(group)
                continue
            base = group.get("lr", self.lr)
            groups += [
                {**group, "params": part["params"], "lr": base * part["lr_scale"]}
                for part in layer_groups(getattr(self, key), self.layer_decay)
            ]
        return groups
