"""Lightning's Trainer of a recipe, on either line."""

from __future__ import annotations

import inspect
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import torch
from omegaconf import DictConfig
from torch.utils.data import DataLoader

from uic_plugin.hosts.guards import write_whole_checkpoints
from uic_plugin.hosts.lightning import pl
from uic_plugin.methods import OWN_METHODS, PseudoLabelMethod
from uic_plugin.methods.base import HostMethod
from uic_plugin.runs.performance import setting
from uic_plugin.runs.settings import lightning_precision, num_devices
from uic_plugin.runs.unread import TRAINER_KEYS

_RANK_TIMEOUT = 1800  # seconds


def make_trainer(
    cfg: DictConfig, *, max_epochs: int, callbacks: list[pl.Callback], evaluates: bool = False
) -> pl.Trainer:
    """Return the host's Trainer, silent but for our own callbacks.

    Args:
        cfg: the prepared recipe.
        max_epochs: of this training.
        callbacks: Lightning's.
        evaluates: leaves out what the recipe says of the pretraining alone, as limits of batches.

    Raises:
        ValueError: for hardware that is not there, or numbers that Lightning does not take.
    """
    arguments: dict[str, Any] = {
        "max_epochs": max_epochs,
        "accelerator": cfg.accelerator,
        "devices": cfg.devices,
        "precision": lightning_precision(cfg.precision),
        "logger": False,
        "callbacks": callbacks,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "benchmark": setting(cfg, "cudnn_benchmark"),
        "sync_batchnorm": cfg.get("sync_batchnorm", False) and torch.cuda.is_available(),
    }
    if num_devices(cfg) > 1:
        strategy = cfg.get("strategy") or "ddp"
        if strategy == "ddp":
            patience = timedelta(seconds=cfg.get("rank_timeout", _RANK_TIMEOUT))
            # Our methods use all their parameters in every step; to look for unused ones, as
            # Lightning 1 does by default, is a wait for the device for each parameter.
            known: dict[str, Any] = {}
            if cfg.method in OWN_METHODS:
                known["find_unused_parameters"] = False
            strategy = pl.strategies.DDPStrategy(timeout=patience, **known)
        arguments["strategy"] = strategy
    if not evaluates:
        arguments.update({name: cfg[name] for name in TRAINER_KEYS if cfg.get(name) is not None})
    try:
        trainer = pl.Trainer(**arguments)
    except Exception as error:  # Lightning has an exception of its own for each line
        if type(error).__name__ != "MisconfigurationException":
            raise
        raise ValueError(
            f"Lightning's Trainer refuses this recipe ({' '.join(str(error).split())}); it has "
            f"accelerator={cfg.accelerator} devices={cfg.devices} precision={cfg.precision}: where "
            f"the hardware is not there set accelerator=cpu devices=1 precision=32"
        ) from error
    write_whole_checkpoints(trainer)
    return trainer


def fit(
    trainer: pl.Trainer,
    module: HostMethod | pl.LightningModule,
    train: DataLoader[Any],
    val: DataLoader[Any] | None = None,
    checkpoint: Path | None = None,
) -> None:
    """`Trainer.fit` on either line; checkpoints are read as tensors and plain values."""
    arguments: dict[str, Any] = {"ckpt_path": str(checkpoint) if checkpoint else None}
    if isinstance(module, PseudoLabelMethod):
        module.resumes = checkpoint is not None
    if "weights_only" in inspect.signature(trainer.fit).parameters:
        arguments["weights_only"] = True
    trainer.fit(cast("pl.LightningModule", module), train, val, **arguments)
