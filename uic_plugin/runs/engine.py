"""Who makes the views of a run: the host, image by image, or this package, batch by batch."""

from __future__ import annotations

from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from uic_plugin.augmentation import BatchViews, RandomViews
from uic_plugin.data.raw import RawImages
from uic_plugin.hosts.pipelines import UnknownOperation, pipelines_of

ENGINES = ("auto", "batch", "host")
DEFAULT_ENGINE = "auto"


def engine_of(cfg: DictConfig) -> str:
    """Return the recipe's `augmentation.engine`.

    Raises:
        ValueError: for one that there is not.
    """
    engine = OmegaConf.select(cfg, "augmentation.engine", default=DEFAULT_ENGINE)
    if engine not in ENGINES:
        raise ValueError(f"augmentation.engine must be one of {', '.join(ENGINES)}, got {engine!r}")
    return str(engine)


def batch_views(cfg: DictConfig, augmentation: object) -> BatchViews | None:
    """Return what makes the views of whole batches, None where the host makes those of an image.

    Args:
        cfg: the recipe, whose `augmentation.engine` says which.
        augmentation: the host's.

    Raises:
        ValueError: if batches are asked for and the augmentation has something that they cannot.
    """
    engine = engine_of(cfg)
    if engine == "host":
        return None
    try:
        return RandomViews(pipelines_of(augmentation), cfg.seed)
    except UnknownOperation as error:
        if engine == "auto":
            return None
        raise ValueError(
            f"augmentation.engine=batch cannot make these views ({error}): set "
            f"augmentation.engine=host"
        ) from error


def trains_on_cpu(cfg: DictConfig) -> bool:
    """Return whether a recipe's training will be on the CPU."""
    has_gpu = torch.cuda.is_available() or torch.backends.mps.is_available()
    return cfg.get("accelerator") == "cpu" or not has_gpu


def resume_engine(cfg: DictConfig, begun: DictConfig) -> None:
    """Let a run that resumes keep the engine that it was begun with, in place.

    Args:
        cfg: the recipe; what it says itself counts, unless that is "auto".
        begun: the recipe as it was written when the run began.
    """
    if engine_of(cfg) == "auto":
        engine = OmegaConf.select(begun, "augmentation.engine", default="host")
        OmegaConf.update(cfg, "augmentation.engine", str(engine), force_add=True)


def note_engine(cfg: DictConfig, loader: Any) -> None:
    """Write down in the recipe, in place of "auto", which engine a loader has."""
    engine = "batch" if isinstance(loader.dataset, RawImages) else "host"
    OmegaConf.update(cfg, "augmentation.engine", engine, force_add=True)
