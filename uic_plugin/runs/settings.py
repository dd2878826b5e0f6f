"""From a composed recipe to settings that the installed host can work with."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, ListConfig, OmegaConf

from uic_plugin.data.resolve import DataSource, resolve_data, without_images
from uic_plugin.hosts import find_host, load_host, register
from uic_plugin.hosts.foreign import (
    check_host_options,
    count_crops,
    own_options,
    set_views,
    typed_options,
    without_dali,
)
from uic_plugin.hosts.lightning import pl
from uic_plugin.hosts.schedules import with_own_schedule
from uic_plugin.methods import NUM_ROTATIONS, OWN_METHODS, RotNet
from uic_plugin.methods.base import HostMethod
from uic_plugin.networks import find_backbone
from uic_plugin.recipes_path import TYPED_KEY
from uic_plugin.runs.augmentation_checks import check_augmentations
from uic_plugin.runs.engine import engine_of
from uic_plugin.runs.partial_training import check_partial_training
from uic_plugin.runs.performance import check_performance
from uic_plugin.runs.recipe_checks import check_numbers, check_schedule, check_sections
from uic_plugin.runs.unread import unread_settings


def prepare_config(cfg: DictConfig, *, needs_images: bool = True) -> tuple[DictConfig, DataSource]:
    """Return a recipe with everything that follows from data and hardware filled in.

    Args:
        cfg: the composed recipe.
        needs_images: whether its images have to be there.

    Raises:
        ValueError: for a method, network or number that cannot be.
        FileNotFoundError: for data that is not there.
    """
    set_up_host()
    cfg = DictConfig(OmegaConf.to_container(cfg, resolve=True))
    _note_host(cfg)
    if isinstance(cfg.backbone, str):  # backbone=NAME for backbone.name=NAME
        cfg.backbone = {"name": cfg.backbone, "kwargs": {}}
    if cfg.get("run_dir"):
        cfg.run_dir = str(Path(cfg.run_dir).expanduser())
    validate(cfg)
    return resolve(cfg, needs_images=needs_images)


def _note_host(cfg: DictConfig) -> None:
    """Write down in the recipe, in place of "auto", which host trains it.

    Raises:
        ValueError: for a recipe of the other host.
    """
    host = find_host().short_name
    if cfg.get("host", "auto") not in ("auto", host):
        raise ValueError(
            f"this recipe is of host={cfg.host}, and {host} is what is used here: install "
            f"{cfg.host}, or where both are installed set the environment's UIC_HOST={cfg.host}"
        )
    cfg.host = host


def set_up_host() -> None:
    """Register our methods with the host, and keep Lightning's notes off the terminal."""
    register()
    for name in ("pytorch_lightning", "lightning.pytorch", "lightning.fabric", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)


def validate(cfg: DictConfig) -> None:
    """Check a recipe's names and numbers, whatever its images are.

    Raises:
        ValueError: for the first that cannot be, with what could.
    """
    check_sections(cfg)
    host = load_host()
    if cfg.method not in host.METHODS or cfg.method in ("base", "linear"):
        known = ", ".join(sorted(set(host.METHODS) - {"base", "linear"}))
        raise ValueError(f"unknown method {cfg.method!r}: one of {known}")
    if cfg.backbone.name not in host.backbone_names() and not find_backbone(cfg.backbone.name):
        raise ValueError(
            f"unknown backbone.name {cfg.backbone.name!r}: one of "
            f"{', '.join(host.backbone_names())}, or timm/NAME"
        )
    for key, names in (("optimizer.name", host.OPTIMIZERS), ("scheduler.name", host.SCHEDULERS)):
        value = OmegaConf.select(cfg, key)
        if value not in names:
            raise ValueError(f"unknown {key} {value!r}: one of {', '.join(names)}")
    check_numbers(cfg)
    check_schedule(cfg.scheduler)
    check_partial_training(cfg)
    check_performance(cfg)
    seconds = cfg.get("max_seconds")
    if seconds is not None and (type(seconds) not in (int, float) or not seconds > 0):
        raise ValueError(f"max_seconds must be null or a number above 0, got {seconds!r}")
    if seconds and num_devices(cfg) > 1:
        raise ValueError(
            "max_seconds works in one process, because ranks would end their epochs at different "
            "steps: set devices=1"
        )
    engine_of(cfg)
    check_augmentations(cfg.get("augmentations"))
    if type(cfg.data.get("no_labels", False)) is not bool:
        raise ValueError(f"data.no_labels must be true or false, got {cfg.data.no_labels!r}")
    allowed = cfg.get("weights_allow_missing") or ListConfig([])
    if not isinstance(allowed, ListConfig) or not all(type(name) is str for name in allowed):
        raise ValueError(
            f"weights_allow_missing must be a list of names, as ['classifier.*'], got {allowed!r}"
        )


def resolve(cfg: DictConfig, *, needs_images: bool = True) -> tuple[DictConfig, DataSource]:
    """Fill in what follows from a recipe's images and its method, in place.

    Args:
        cfg: a recipe that `validate` has passed.
        needs_images: whether its images have to be there; the source has no paths if not.

    Raises:
        ValueError: for data of the wrong kind, or options that the method does not take.
        FileNotFoundError: for data that is not there.
    """
    typed = cfg.pop(TYPED_KEY, [])
    for key in unread_settings(typed):
        warnings.warn(f"nothing reads {key}: it has no effect", stacklevel=3)
    without_dali(cfg.data)
    if needs_images:
        source = resolve_data(cfg.data)
        cfg.data.train_path = str(source.train.resolve())
        cfg.data.val_path = str(source.val.resolve()) if source.val else None
        if source.index is not None:
            cfg.data.index = str(source.index.resolve())
        elif source.format == "packed":
            cfg.data.index = None  # it has a list of its own
    else:
        source = without_images(cfg.data)
    cfg.data.num_classes = source.num_classes
    cfg.knn_eval.enabled = bool(cfg.knn_eval.enabled and source.labelled and source.val)
    _resolve_method_options(cfg, typed)
    _resolve_bad_images(cfg)
    if cfg.method in OWN_METHODS:
        own = OWN_METHODS[cfg.method].options_class
        given = cfg.method_kwargs
        small = given.get("small_crops", own.small_crops)
        set_views(cfg.augmentations, given.get("views", own.views), small)
    if cfg.method == "random":  # nothing is trained: one step of one process makes the checkpoint
        cfg.max_epochs, cfg.limit_train_batches = 1, 1
        cfg.devices, cfg.num_nodes, cfg.knn_eval.enabled = 1, 1, False
    return cfg, source


def _resolve_bad_images(cfg: DictConfig) -> None:
    """Bring what is said about unreadable images to both places where it may be said.

    Said for the data it holds for every method; said for uic it is what the host's scripts take.
    """
    policy = cfg.data.get("on_bad_image") or cfg.method_kwargs.get("on_bad_image") or "stop"
    if policy not in ("stop", "skip"):
        raise ValueError(f"data.on_bad_image must be stop or skip, got {policy!r}")
    limit = cfg.data.get("max_bad_images")
    if limit is None:
        limit = cfg.method_kwargs.get("max_bad_images")
    if limit is not None and (type(limit) is not int or limit < 0):
        raise ValueError(
            f"data.max_bad_images must be null or a whole number of at least 0, got {limit!r}"
        )
    cfg.data.on_bad_image, cfg.data.max_bad_images = policy, limit
    if cfg.method in OWN_METHODS:
        cfg.method_kwargs.on_bad_image, cfg.method_kwargs.max_bad_images = policy, limit


def views_per_image(cfg: DictConfig) -> int:
    """Return how many views of an image pass through the network in one training step.

    Views that labels come from in a pass of their own are not counted.
    """
    if cfg.method == RotNet.name:
        return NUM_ROTATIONS
    return int(sum(pipeline.num_crops for pipeline in cfg.augmentations))


def build_method(cfg: DictConfig) -> HostMethod:
    """Return the method of a prepared recipe, its weights seeded, its learning rates scaled.

    As in solo-learn, `optimizer.lr` is meant for 256 images and scaled to the images of a step.
    """
    host = load_host()
    cfg = DictConfig(OmegaConf.to_container(cfg, resolve=True))
    cfg.data.num_large_crops, cfg.data.num_small_crops = count_crops(cfg.augmentations)
    scale = cfg.optimizer.batch_size * num_devices(cfg) / 256
    cfg.optimizer.lr *= scale
    cfg.optimizer.classifier_lr *= scale
    if cfg.optimizer.name in ("sgd", "lars"):  # what the host's own scripts fill in
        cfg.optimizer.kwargs.setdefault("momentum", 0.9)
    pl.seed_everything(cfg.seed)
    try:
        with unknown_options_named(cfg):
            method = host.build_method(cfg)
    except AssertionError as error:  # how the host checks its arguments
        raise ValueError(
            f"the host's {cfg.method} cannot be built with {cfg.backbone.name}"
            f"{f' ({error})' if str(error) else ''}: choose another backbone.name, or look at "
            f"method_kwargs and backbone.kwargs"
        ) from error
    if cfg.method not in OWN_METHODS:  # which bring it along
        method.configure_optimizers = partial(  # type: ignore[method-assign]
            with_own_schedule, method, method.configure_optimizers
        )
    if not cfg.performance.disable_channel_last:  # the host's scripts do this outside the method
        method = method.to(memory_format=torch.channels_last)
    return method


@contextmanager
def unknown_options_named(cfg: DictConfig) -> Iterator[None]:
    """Turn Python's refusal of an unknown keyword, which the host passes on, into a message."""
    try:
        yield
    except TypeError as error:
        if "unexpected keyword argument" not in str(error):
            raise
        raise ValueError(
            f"{cfg.method} with {cfg.backbone.name} and {cfg.optimizer.name} does not take an "
            f"option of the recipe: {error}; look at method_kwargs, backbone.kwargs and "
            f"optimizer.kwargs"
        ) from error


def num_devices(cfg: DictConfig) -> int:
    """Return how many processes share a step.

    Raises:
        ValueError: for a value that is no number or list of devices.
    """
    devices = cfg.devices
    if isinstance(devices, str) and devices not in ("auto", "-1"):
        parts = devices.split(",")
        if not all(part.strip().isdigit() for part in parts):
            raise ValueError(f"devices must be a number, a list or auto, got {devices!r}")
        devices = int(devices) if len(parts) == 1 else parts
    if devices in ("auto", "-1", -1):
        on_cpu = cfg.accelerator == "cpu" or not torch.cuda.is_available()
        devices = 1 if on_cpu else torch.cuda.device_count()
    if type(devices) is not int and not isinstance(devices, (list, ListConfig)):
        raise ValueError(f"devices must be a number, a list or auto, got {cfg.devices!r}")
    count = devices if isinstance(devices, int) else len(devices)
    if count < 1:
        raise ValueError(f"devices must be at least 1, got {cfg.devices!r}")
    return count * int(cfg.get("num_nodes") or 1)


def uses_processor_clock(cfg: DictConfig, threads: int | None = None) -> bool:
    """Return whether `max_seconds` are the processor's: one thread on the CPU does all the work.

    Other programs add nothing to them. On a GPU, or with workers that load images, they would not
    count all of the work, of several threads they would be the sum, and the wall's seconds have to
    do.

    Args:
        cfg: the recipe.
        threads: of the training; by default those that torch has in this process.
    """
    on_cpu = cfg.accelerator == "cpu" or not torch.cuda.is_available()
    is_alone = (torch.get_num_threads() if threads is None else threads) == 1
    return on_cpu and is_alone and cfg.data.num_workers == 0


def lightning_precision(name: Any) -> Any:
    """Lightning 2's names on Lightning 1, where "bf16" and 16 mean mixed precision."""
    if int(pl.__version__.split(".")[0]) >= 2:
        return name
    return {"bf16-mixed": "bf16", "16-mixed": 16}.get(str(name), name)


def _resolve_method_options(cfg: DictConfig, typed: list[str]) -> None:
    """Resolve our methods' options; for the host's, refuse names that none of them knows."""
    given: Any = OmegaConf.to_container(cfg.method_kwargs)
    method = OWN_METHODS.get(cfg.method)
    if method is not None:
        own = own_options(given, typed, method.options_class, cfg.method)
        options = method.make_options(own, cfg.data.num_classes)
        cfg.method_kwargs = options.as_dict()
        for risk in options.risks():
            warnings.warn(risk, stacklevel=4)
        for name in sorted(typed_options(typed)):
            needed = options.needed_for(name)
            if needed is not None:
                warnings.warn(f"method_kwargs.{name} has no effect without {needed}", stacklevel=4)
        return
    check_host_options(given)
