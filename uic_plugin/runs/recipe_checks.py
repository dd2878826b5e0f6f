"""Checks of a recipe's sections, of the numbers in them, and of its schedule."""

from __future__ import annotations

import math

from omegaconf import DictConfig, ListConfig, OmegaConf

_SECTIONS = (
    *("backbone", "data", "optimizer", "scheduler", "method_kwargs", "augmentation"),
    *("knn_eval", "knn", "linear", "performance"),
)
_INNER = ("backbone.kwargs", "optimizer.kwargs")


def check_sections(cfg: DictConfig) -> None:
    """Refuse a single value in the place of a section, and a network without a name.

    Raises:
        ValueError: for the first of them.
    """
    for key in (*_SECTIONS, *_INNER):
        value = OmegaConf.select(cfg, key, default=...)
        if value is not ... and not isinstance(value, DictConfig):
            raise ValueError(
                f"{key} is a section of settings, got {value!r}: give {key}.NAME=..., as "
                f"'uic recipes' shows them"
            )
    if not isinstance(cfg.backbone.get("name"), str):
        raise ValueError(
            f"backbone.name must be a network's name, as resnet18, got {cfg.backbone.get('name')!r}"
        )


def check_schedule(scheduler: DictConfig) -> None:
    """Refuse a schedule of another form.

    Args:
        scheduler: the section of a recipe.

    Raises:
        ValueError: for the first setting that cannot be.
    """
    interval = scheduler.get("interval", "epoch")
    if interval not in ("epoch", "step"):
        raise ValueError(f"scheduler.interval must be epoch or step, got {interval!r}")
    for name in ("warmup_epochs", "warmup_start_lr", "min_lr"):
        check_number(f"scheduler.{name}", scheduler.get(name) or 0)
    steps = scheduler.get("lr_decay_steps")
    check_epochs("scheduler.lr_decay_steps", steps or [])
    if scheduler.name == "step" and not steps:
        raise ValueError(
            "scheduler.name=step needs the epochs after which the rate falls: add "
            "'+scheduler.lr_decay_steps=[60,80]', say"
        )


def check_epochs(name: str, value: object) -> None:
    """Raise ValueError unless a setting is a list of whole numbers."""
    is_list = isinstance(value, ListConfig | list | tuple)
    if not is_list or any(type(epoch) is not int for epoch in value):  # type: ignore[attr-defined]
        raise ValueError(f"{name} must be a list of epochs, as [60,80], got {value!r}")


def check_numbers(cfg: DictConfig) -> None:
    """Refuse numbers of a recipe that cannot be.

    Raises:
        ValueError: for the first of them.
    """
    for key in ("optimizer.lr", "optimizer.classifier_lr", "optimizer.weight_decay"):
        check_number(key, OmegaConf.select(cfg, key))
    for key, lowest in (
        ("seed", 0),
        ("max_epochs", 1),
        ("optimizer.batch_size", 1),
        ("data.num_workers", 0),
        ("snapshots", 0),
        ("log_classes_every", 0),
        ("checkpoint_steps", 0),
    ):
        check_whole(key, OmegaConf.select(cfg, key, default=0), lowest)
    batches = cfg.get("accumulate_grad_batches")
    check_whole("accumulate_grad_batches", 1 if batches is None else batches, 1)
    check_number("gradient_clip_val", cfg.get("gradient_clip_val") or 0)
    check_number("rank_timeout", cfg.get("rank_timeout") or 0)


def check_number(name: str, value: object) -> None:
    """Raise ValueError unless a setting is a finite number of at least 0."""
    if isinstance(value, (int, float)) and type(value) is not bool and 0 <= value < math.inf:
        return
    raise ValueError(f"{name} must be a number of at least 0, got {value!r}")


def check_whole(name: str, value: object, lowest: int) -> None:
    """Raise ValueError unless a setting is a whole number of at least `lowest`."""
    if type(value) is not int or value < lowest:
        raise ValueError(f"{name} must be a whole number of at least {lowest}, got {value!r}")
