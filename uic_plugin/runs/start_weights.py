"""Start a run from weights that another one, or another program, wrote."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig

from uic_plugin.hosts import backbone_of, load_host
from uic_plugin.hosts.checkpoint_files import read_checkpoint
from uic_plugin.methods.kept_labels import CHECKPOINT_KEY
from uic_plugin.networks.heads import PseudoClassHead
from uic_plugin.networks.pretrained import (
    DEFAULT,
    LITE0,
    Backbone,
    load_pretrained,
    weights_at_hand,
)
from uic_plugin.networks.registry import TIMM_PREFIX
from uic_plugin.networks.weights import copy_weights, load_weights, read_state

_NORMALISATION = 0.02  # of a mean or a deviation: differences below do not matter


def start_from(method: Any, path: Path, allow_missing: Sequence[str] = ()) -> None:
    """Copy the network's weights from a file, and the head's where the file has one.

    Warns of weights that keep their random values because they are allowed to.

    Args:
        method: of the host, or ours.
        path, allow_missing: see `load_weights`.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it lacks weights that may not be missing, or its head is of another kind or
            number of classes.
    """
    network = backbone_of(method)
    report = load_weights(network, path, allow_missing=allow_missing)
    if report.summary():
        warnings.warn(f"{path}: {report.summary()}", stacklevel=2)
    _start_head(method, path)
    _start_copies(method)


def start_pretrained(method: Any, cfg: DictConfig) -> None:
    """Copy the pretrained weights of a network of timm.

    Warns where the recipe's images are normalised in another way than those of the pretraining.

    Args:
        method: of the host, or ours.
        cfg: the prepared recipe.

    Raises:
        ValueError: for a network that no pretrained weights are published of, or of another shape.
        FileNotFoundError: for weights that are not on this machine and cannot be downloaded.
    """
    name = str(cfg.backbone.name)
    if not name.startswith(TIMM_PREFIX):
        raise ValueError(
            f"pretrained=true is for networks of timm, as backbone=timm/resnet18, got {name}: "
            f"give a file, weights=FILE"
        )
    try:
        with torch.random.fork_rng(devices=[]):
            pretrained = load_pretrained(_default_if_same(name))
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"pretrained=true: {error} (for a training that is weights=FILE pretrained=false)"
        ) from error
    network = backbone_of(method)
    allowed = cfg.get("weights_allow_missing") or ()
    copy_weights(network, pretrained.network.state_dict(), name, allow_missing=allowed)
    _start_copies(method)
    _warn_of_normalisation(cfg, pretrained)


def _default_if_same(name: str) -> str:
    """Return the name of the weights that need no hub, where those are of the same network."""
    return DEFAULT if name == TIMM_PREFIX + LITE0 and DEFAULT in weights_at_hand() else name


def _warn_of_normalisation(cfg: DictConfig, pretrained: Backbone) -> None:
    pipeline = cfg.augmentations[0]
    wanted = {"mean": pretrained.mean, "std": pretrained.std}
    pairs = [
        pair
        for key, given in wanted.items()
        for pair in zip(pipeline.get(key) or given, given, strict=True)
    ]
    if any(abs(own - given) > _NORMALISATION for own, given in pairs):
        remedy = " ".join(f"augmentations.0.{key}={list(given)}" for key, given in wanted.items())
        warnings.warn(
            f"{cfg.backbone.name} was pretrained with another mean and std than this recipe's, "
            f"which matters to frozen layers: set {remedy}",
            stacklevel=3,
        )


def _start_copies(method: Any) -> None:
    """Start moving averages of the network as copies of it, the host's and ours."""
    network = backbone_of(method)
    momentum = getattr(method, f"momentum_{load_host().BACKBONE_KEY}", None)
    if momentum is not None:
        momentum.load_state_dict(network.state_dict())
    average = getattr(method, "label_network", None)
    if average is not None:
        average["network"].load_state_dict(network.state_dict())
        average["head"].load_state_dict(method.head.state_dict())


def _start_head(method: Any, path: Path) -> None:
    """Copy the weights of the head, where the file has those of one of ours."""
    head = getattr(method, "head", None)
    state = {
        name.removeprefix("head."): value
        for name, value in read_state(path).items()
        if name.startswith("head.")
    }
    if not isinstance(head, PseudoClassHead) or "classifier.weight" not in state:
        return  # the file's head, if any, is another program's
    own = head.state_dict()
    there, here = len(state["classifier.weight"]), len(own["classifier.weight"])
    sizes = _saved_sizes(path) or ((there,) if there != here else head.sizes)
    remedy = "or 'uic weights' writes the network alone, for a new head"
    if sizes != head.sizes:
        wanted = f"method_kwargs.num_pseudo_classes={sizes[0]}"
        if len(sizes) > 1 or len(head.sizes) > 1:
            others = str(list(sizes[1:])).replace(" ", "")
            wanted += f" method_kwargs.heads=1 method_kwargs.more_heads={others}"
        raise ValueError(
            f"{path} has {_joined(sizes)} pseudo classes, this run has {_joined(head.sizes)}: set "
            f"{wanted}, {remedy}"
        )
    if {k: v.shape for k, v in own.items()} != {k: v.shape for k, v in state.items()}:
        raise ValueError(
            f"the head in {path} is of another kind than this run's {method.options.head}: set "
            f"method_kwargs.head and its sizes as there, {remedy}"
        )
    head.load_state_dict(state)


def _saved_sizes(path: Path) -> tuple[int, ...]:
    """Return the number of classes of each classifier of a run's checkpoint; () if it is none."""
    if path.suffix != ".ckpt":
        return ()
    saved = read_checkpoint(path).get(CHECKPOINT_KEY)
    options = saved.get("options") if isinstance(saved, dict) else None
    if not isinstance(options, dict) or "num_pseudo_classes" not in options:
        return ()
    first = (int(options["num_pseudo_classes"]),) * int(options.get("heads", 1))
    return (*first, *(int(count) for count in options.get("more_heads") or ()))


def _joined(sizes: tuple[int, ...]) -> str:
    return ", ".join(str(size) for size in sizes)
