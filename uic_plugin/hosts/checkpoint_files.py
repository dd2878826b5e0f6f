"""Checkpoint files: whether one is whole, what it holds. Nothing in a file is ever executed."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import torch

from uic_plugin.methods import CHECKPOINT_KEY
from uic_plugin.networks.weights import uncompiled


def damage_of(path: Path) -> str | None:
    """Return what is wrong with a checkpoint file, or None for a whole one; reads all of it.

    torch itself does not look at the checksums that it writes.
    """
    try:
        with open(path, "rb") as file:
            if file.read(2) != b"PK":  # torch's format before 1.6 has no checksums
                torch.load(path, map_location="cpu", weights_only=True)
                return None
        with zipfile.ZipFile(path) as archive:
            part = archive.testzip()
            return f"its part {part} is damaged" if part else None
    except Exception as error:  # torch, zipfile and zlib raise many kinds for a damaged file
        return f"it is no whole checkpoint ({error})"


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Return a checkpoint's content.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if the file is no checkpoint of a training run, or is damaged.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such checkpoint")
    damage = damage_of(path)
    if damage:
        raise ValueError(f"{path} is not a checkpoint, or is damaged: {damage}")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a file that is not its own
        raise ValueError(f"{path} is not a checkpoint, or is damaged") from error
    weights = content.get("state_dict") if isinstance(content, dict) else None
    if not isinstance(weights, dict):
        raise ValueError(f"{path} is not a checkpoint of a training run: it has no weights")
    if not all(isinstance(value, torch.Tensor) for value in weights.values()):
        raise ValueError(
            f"{path} is not a checkpoint of a training run: its weights are no tensors"
        )
    content["state_dict"] = uncompiled(weights)
    labels = content.get(CHECKPOINT_KEY, {"bank": {}})
    if not isinstance(labels, dict) or not isinstance(labels.get("bank"), dict):
        raise ValueError(f"{path} has pseudo labels in a form that this version does not know")
    return content
