"""Backbones of methods under lightly: by name, or any network that is given."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torchvision
from torch import nn

from uic_plugin.networks import BACKBONES, find_backbone

RESNETS = ("resnet18", "resnet34", "resnet50", "resnet101", "wide_resnet50_2")
Backbone = str | nn.Module | Callable[[], nn.Module]


def backbone_names() -> list[str]:
    """Return the names that a backbone may have, beside timm's."""
    return [*RESNETS, *BACKBONES]


def build_backbone(
    backbone: Backbone, feature_dim: int | None = None, **kwargs: Any
) -> tuple[nn.Module, int]:
    """Return a network, images (B, 3, H, W) to features (B, D) or (B, D, 1, 1), and D.

    Args:
        backbone: one of `backbone_names`, timm/NAME, a network, or a function that makes one.
        feature_dim: D, where the network does not say it as `num_features`.
        kwargs: of the builder of a named one.

    Raises:
        ValueError: for an unknown name, or a network whose D is not known.
    """
    if isinstance(backbone, str):
        network = _by_name(backbone, kwargs)
    else:
        network = backbone if isinstance(backbone, nn.Module) else backbone()
    kind = type(network).__name__
    if isinstance(getattr(network, "fc", None), nn.Linear) and feature_dim is None:
        raise ValueError(
            f"the backbone is a {kind} that ends in a classifier: set backbone.fc = nn.Identity(), "
            f"as lightly's examples do"
        )
    if feature_dim is None:
        feature_dim = getattr(network, "num_features", None) or getattr(network, "inplanes", None)
    if not isinstance(feature_dim, int):
        raise ValueError(
            f"a {kind} does not say how wide its features are: pass feature_dim=, for a ResNet-50 "
            f"2048"
        )
    return network, feature_dim


def _by_name(name: str, kwargs: dict[str, Any]) -> nn.Module:
    own = find_backbone(name)
    if own is not None:
        return own(**kwargs)
    if name not in RESNETS:
        raise ValueError(
            f"unknown backbone {name!r}: one of {', '.join(backbone_names())}, timm/NAME, or a "
            f"torch.nn.Module"
        )
    stem = kwargs.pop("small_images", False)
    builder = getattr(torchvision.models, name)
    _check_keywords(builder, kwargs)
    network: Any = builder(**kwargs)
    network.fc = nn.Identity()
    if stem:  # solo-learn's, for CIFAR
        network.conv1 = nn.Conv2d(3, 64, 3, padding=2, bias=False)
        network.maxpool = nn.Identity()
    return network  # type: ignore[no-any-return]


def _check_keywords(builder: Callable[..., Any], kwargs: dict[str, Any]) -> None:
    known = inspect.signature(torchvision.models.ResNet).parameters
    for name in kwargs:
        if name not in known and name not in inspect.signature(builder).parameters:
            raise TypeError(f"{builder.__name__} got an unexpected keyword argument {name!r}")
