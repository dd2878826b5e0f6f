"""Freeze the first layers of a network, and learn the rest more slowly the deeper it lies.

    frozen = freeze_layers(network, 4)          # or "all", "none"
    for module in frozen: module.eval()         # before every step: BatchNorm stays as it is
    groups = layer_groups(network, decay=0.75)

Layer-wise decay of the learning rate as in BEiT (arXiv 2106.08254) and timm, by timm's own groups.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from uic_plugin.networks.layers import FEATURES, MLP, layer_modules

NONE, ALL = "none", "all"


def check_freeze(freeze: Any) -> None:
    """Check a recipe's `freeze`.

    Raises:
        ValueError: if it is not none, all or a whole number of at least 0.
    """
    if freeze in (NONE, ALL) or (type(freeze) is int and freeze >= 0):
        return
    raise ValueError(f"freeze must be none, all or the number of layers to freeze, got {freeze!r}")


def freeze_layers(network: nn.Module, freeze: str | int) -> list[nn.Module]:
    """Freeze the first layers of a network: their parameters get no gradient.

    Args:
        network: any backbone.
        freeze: "none", "all", or how many of its layers, which `layer_modules` names in order.

    Returns:
        The modules without any part that still learns; in eval mode, where BatchNorm and dropout
        leave a frozen layer's output as it is, until somebody sets their mode.

    Raises:
        ValueError: for another value, or more layers than the network has.
    """
    check_freeze(freeze)
    if freeze in (NONE, 0):
        return []
    if freeze == ALL:
        network.requires_grad_(False).eval()
        return list(network.modules())
    named = dict(network.named_modules())
    last = _last_frozen(network, int(freeze), list(named))
    position = {path: number for number, path in enumerate(named)}
    frozen = []
    for path, module in named.items():
        if position[path] > last:
            continue
        for parameter in module.parameters(recurse=False):
            parameter.requires_grad_(False)
        below = [position[other] for other in named if other.startswith(f"{path}.") or not path]
        if max(below, default=position[path]) <= last:
            frozen.append(module.eval())
    return frozen


def _last_frozen(network: nn.Module, count: int, paths: list[str]) -> int:
    """Return the position of the last module of the first `count` layers."""
    ends = _ends_of_layers(network, paths)
    if count > len(ends):
        raise ValueError(
            f"freeze={count}: this {type(network).__name__} has {len(ends)} layers "
            f"({', '.join(ends)}); freeze=all freezes the whole network"
        )
    return list(ends.values())[count - 1]


def _ends_of_layers(network: nn.Module, paths: list[str]) -> dict[str, int]:
    """Return the position of the last module of each layer, by the layer's name."""
    return {
        name: max(n for n, other in enumerate(paths) if _is_in(other, path))
        for name, path in layer_modules(network).items()
        if name not in (FEATURES, MLP)
    }


def _is_in(path: str, folder: str) -> bool:
    return path == folder or path.startswith(f"{folder}.")


def layer_groups(network: nn.Module, decay: float) -> list[dict[str, Any]]:
    """Return a network's trainable parameters in groups of equal depth.

    Args:
        network: any backbone; timm's say which of their parameters are equally deep, of others
            these are the parameters up to the end of a layer that `layer_modules` names.
        decay: factor of the learning rate from one depth to the one before it, in (0, 1].

    Returns:
        Groups with `params` and `lr_scale`, the factor of the learning rate, in (0, 1]; together
        they have every parameter that needs a gradient, once.
    """
    if hasattr(network, "group_matcher"):
        return _groups_of_timm(network, decay)
    named = dict(network.named_modules())
    ends = list(_ends_of_layers(network, list(named)).values())
    deepest = len(ends)
    groups: dict[int, list[nn.Parameter]] = {}
    for position, module in enumerate(named.values()):
        depth = sum(end < position for end in ends)
        own = [p for p in module.parameters(recurse=False) if p.requires_grad]
        groups.setdefault(depth, []).extend(own)
    return [
        {"params": params, "lr_scale": decay ** (deepest - depth)}
        for depth, params in groups.items()
        if params
    ]


def _groups_of_timm(network: nn.Module, decay: float) -> list[dict[str, Any]]:
    from timm.optim import param_groups_layer_decay

    groups: dict[float, list[nn.Parameter]] = {}
    # it also divides by weight decay, which is the host's to decide
    for part in param_groups_layer_decay(network, weight_decay=0.0, layer_decay=decay):
        groups.setdefault(part["lr_scale"], []).extend(part["params"])
    return [{"params": params, "lr_scale": scale} for scale, params in groups.items()]
