"""Start a run from weights that another one, or another program, wrote."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from uic_plugin.hosts import backbone_of, load_host
from uic_plugin.networks.heads import PseudoClassHead
from uic_plugin.networks.weights import load_weights, read_state


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
    momentum = getattr(method, f"momentum_{load_host().BACKBONE_KEY}", None)
    if momentum is not None:  # starts as a copy, as in the host
        momentum.load_state_dict(network.state_dict())
    _start_head(method, path)
    average = getattr(method, "label_network", None)
    if average is not None:  # starts as a copy, too
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
    remedy = "or 'uic weights' writes the network alone, for a new head"
    if there != here:
        raise ValueError(
            f"{path} has {there} pseudo classes, this run has {here}: set "
            f"method_kwargs.num_pseudo_classes={there}, {remedy}"
        )
    if {k: v.shape for k, v in own.items()} != {k: v.shape for k, v in state.items()}:
        raise ValueError(
            f"the head in {path} is of another kind than this run's {method.options.head}: set "
            f"method_kwargs.head and its sizes as there, {remedy}"
        )
    head.load_state_dict(state)
