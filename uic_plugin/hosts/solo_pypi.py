"""Adapter for solo-learn 1.0.2 from PyPI: argparse, pytorch-lightning 1."""

from __future__ import annotations

import dataclasses
from argparse import ArgumentParser
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import solo.utils.backbones
import torch
from omegaconf import DictConfig, OmegaConf
from solo.methods import METHODS, LinearModel
from solo.methods.base import BaseMethod, BaseMomentumMethod
from solo.utils.auto_resumer import AutoResumer
from solo.utils.classification_dataloader import prepare_transforms as _prepare_transforms
from solo.utils.pretrain_dataloader import (
    prepare_datasets,
    prepare_n_crop_transform,
    prepare_transform,
)
from torch import nn

from uic_plugin.hosts.attach import attach_method
from uic_plugin.hosts.foreign import count_crops
from uic_plugin.hosts.protocol import Augmentation, SizedDataset, View
from uic_plugin.hosts.schedules import COSINES, LINEAR
from uic_plugin.hosts.solo_dino import fix_dino
from uic_plugin.hosts.solo_knn import collect_only, knn_accuracy
from uic_plugin.hosts.solo_loss import fix_deepclusterv2
from uic_plugin.hosts.solo_method import SoloMethod
from uic_plugin.hosts.solo_resumer import skip_damaged_checkpoints
from uic_plugin.methods import OWN_METHODS
from uic_plugin.methods.base import HostMethod
from uic_plugin.networks import BACKBONES, find_backbone

if TYPE_CHECKING:
    from uic_plugin.hosts.lightning import pl

__all__ = [
    "BACKBONE_KEY",
    "METHODS",
    "OPTIMIZERS",
    "SCHEDULERS",
    "UICMethod",
    "augmentation",
    "backbone_names",
    "build_method",
    "eval_transforms",
    "h5_dataset",
    "knn_accuracy",
    "linear_model",
    "pretrain_dataset",
    "register",
]

BACKBONE_KEY = "encoder"
OPTIMIZERS = ("sgd", "lars", "adam", "adamw")
SCHEDULERS = ("none", "warmup_cosine", "cosine", "step", LINEAR)
# The slot of the host's fixed list of networks that is lent to ours while a method is built.
_LENT_SLOT = "vit_tiny"
# Lightning 1.9 calls this hook without the `dataloader_idx` that 1.4 gave and the host requires.
BaseMomentumMethod.on_train_batch_end.__defaults__ = (0,)


class _Adapter(SoloMethod, BaseMethod):
    """What a method of ours needs of this line; a class of `uic_plugin.methods` goes before it.

    Keyword arguments are the host's and those of the method's options.
    """

    def __init__(self, **kwargs: Any) -> None:
        known = (*self.options_class.names(), *self.options_class.removed)
        given = {name: kwargs.pop(name) for name in known if name in kwargs}
        options = self.make_options(given, kwargs["num_classes"])
        kwargs.update(num_large_crops=1, num_small_crops=0)
        seed = kwargs.get("seed")
        super().__init__(**kwargs)
        self.finish_building(options, 5 if seed is None else int(seed))

    @classmethod
    def add_model_specific_args(cls, parent_parser: ArgumentParser) -> ArgumentParser:
        """Return the host's arguments, and the method's."""
        parent_parser = BaseMethod.add_model_specific_args(parent_parser)
        parser = parent_parser.add_argument_group(cls.name)
        defaults = cls.options_class().as_dict()
        for field in dataclasses.fields(cls.options_class):
            value = defaults[field.name]
            reader = _reader_of(value, str(field.type))
            parser.add_argument(f"--{field.name}", type=reader, default=value)
        return parent_parser

    @property
    def _network(self) -> nn.Module:
        return self.encoder

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Tell Lightning that it is no longer restarting.

        Lightning 1.9 steps the schedules once more at the end of the epoch in which it restarted:
        right for a checkpoint of the epoch's end, wrong for one within the epoch.
        """
        self.trainer.fit_loop._restarting = False

    def setup(self, stage: str | None = None) -> None:
        """Take over the order of the training images, or count them."""
        super().setup(stage)
        if stage == "fit":
            attach_method(self, self.trainer._data_connector._train_dataloader_source)


HOSTED: dict[str, type[HostMethod]] = {
    name: type(f"Hosted{core.__name__}", (core, _Adapter), {}) for name, core in OWN_METHODS.items()
}
UICMethod = HOSTED["uic"]


def _reader_of(value: object, annotation: str) -> Callable[[str], object]:
    """Return what makes a value of an argument, by the kind of its default; of none by its type."""
    if isinstance(value, bool):
        return _boolean
    if isinstance(value, list):
        return _numbers
    if value is None:
        return int if annotation.startswith("int") else str
    return type(value)


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.strip("[]").split(",") if part.strip()]


def _boolean(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError(f"must be true or false, got {text!r}")
    return text.lower() == "true"


def register() -> None:
    """Add our methods to the host's registry; this line has no registry of networks."""
    METHODS.update(HOSTED)
    fix_deepclusterv2()
    fix_dino()
    skip_damaged_checkpoints(AutoResumer)


@contextmanager
def _lend_slot(name: str) -> Iterator[str]:
    """Make the host build one of our networks.

    Its `BaseMethod` looks networks up in a dict local to the constructor, filled from
    `solo.utils.backbones` at each call: what stands there is what it, and the momentum copies of
    its methods, build.
    """
    network = find_backbone(name)
    if network is None:
        yield name
        return
    original = getattr(solo.utils.backbones, _LENT_SLOT)
    setattr(solo.utils.backbones, _LENT_SLOT, network)
    try:
        yield _LENT_SLOT
    finally:
        setattr(solo.utils.backbones, _LENT_SLOT, original)


def build_method(cfg: DictConfig) -> HostMethod:
    """Build a method of the registry from a composed recipe, learning rates as they are."""
    plain: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True)  # type: ignore[assignment]
    optimizer, scheduler = plain["optimizer"], plain["scheduler"]
    momentum = plain.get("momentum") or {}
    is_lars = optimizer["name"] == "lars"
    extra = dict(optimizer.get("kwargs") or {})
    lars = {
        name: extra.pop(name) for name in ("eta", "clip_lr", "exclude_bias_n_norm") if name in extra
    }
    interval = scheduler.get("interval", "epoch")
    if interval != "epoch" and scheduler["name"] not in (LINEAR, "none", *COSINES):
        raise ValueError(
            f"scheduler.interval={interval} with {scheduler['name']} needs solo-learn main: this "
            f"line steps once per epoch; scheduler.name={LINEAR} or warmup_cosine can do both"
        )
    backbone_args = dict(plain["backbone"].get("kwargs") or {})
    if find_backbone(plain["backbone"]["name"]) is None:
        backbone_args["cifar"] = plain["data"]["dataset"] in ("cifar10", "cifar100")
    num_large, num_small = count_crops(cfg.augmentations)
    with _lend_slot(plain["backbone"]["name"]) as encoder:
        method = METHODS[cfg.method](
            encoder=encoder,
            backbone_args=backbone_args,
            num_classes=plain["data"]["num_classes"],
            max_epochs=plain["max_epochs"],
            batch_size=optimizer["batch_size"],
            optimizer="sgd" if is_lars else optimizer["name"],
            lars=is_lars,
            eta_lars=lars.get("eta", 1e-3),
            grad_clip_lars=lars.get("clip_lr", False),
            exclude_bias_n_norm=lars.get("exclude_bias_n_norm", False),
            lr=optimizer["lr"],
            weight_decay=optimizer["weight_decay"],
            classifier_lr=optimizer["classifier_lr"],
            accumulate_grad_batches=plain.get("accumulate_grad_batches") or 1,
            extra_optimizer_args=extra,
            scheduler=_scheduler_name(scheduler),
            min_lr=scheduler.get("min_lr", 0.0),
            warmup_start_lr=scheduler.get("warmup_start_lr", 3e-5),
            warmup_epochs=scheduler.get("warmup_epochs", 10),
            lr_decay_steps=scheduler.get("lr_decay_steps"),
            num_large_crops=num_large,
            num_small_crops=num_small,
            knn_eval=plain["knn_eval"]["enabled"],
            knn_k=plain["knn_eval"].get("k", 20),
            base_tau_momentum=momentum.get("base_tau", 0.99),
            final_tau_momentum=momentum.get("final_tau", 1.0),
            momentum_classifier=momentum.get("classifier", False),
            seed=plain["seed"],
            **(plain.get("method_kwargs") or {}),
        )
    method.encoder_name = plain["backbone"]["name"]
    method.scheduler_interval, method.steps_cosine_by_epoch = interval, True  # for our schedules
    collect_only(method)
    return method


def _scheduler_name(scheduler: dict[str, Any]) -> str:
    """Without warm-up this line's warmup_cosine stays at `warmup_start_lr`: take its cosine."""
    name = scheduler["name"]
    return "cosine" if name == "warmup_cosine" and not scheduler.get("warmup_epochs") else name


def backbone_names() -> list[str]:
    """Return the names that `backbone.name` may have, beside timm's."""
    return [*BaseMethod._SUPPORTED_ENCODERS, *BACKBONES]


def augmentation(dataset: str, pipelines: Sequence[DictConfig]) -> Augmentation:
    """Return the host's augmentation: an image to a list of crops.

    Raises:
        ValueError: for parts that this line of the host does not have.
    """
    transforms = [_transform(dataset, cfg) for cfg in pipelines]
    return prepare_n_crop_transform(transforms, [cfg.num_crops for cfg in pipelines])


def _transform(dataset: str, cfg: DictConfig) -> Callable[[Any], Any]:
    if cfg.get("equalization", {}).get("prob", 0.0):
        raise ValueError("augmentations.equalization needs solo-learn main: set its prob to 0")
    if not cfg.rrc.enabled:
        raise ValueError(
            "augmentations.rrc.enabled=false needs solo-learn main: set crop_min_scale=1 instead"
        )
    jitter = cfg.color_jitter
    arguments = {
        "brightness": jitter.get("brightness", 0.0),
        "contrast": jitter.get("contrast", 0.0),
        "saturation": jitter.get("saturation", 0.0),
        "hue": jitter.get("hue", 0.0),
        "color_jitter_prob": jitter.prob,
        "gray_scale_prob": cfg.grayscale.prob,
        "gaussian_prob": cfg.gaussian_blur.prob,
        "solarization_prob": cfg.solarization.prob,
        "horizontal_flip_prob": cfg.horizontal_flip.prob,
        "min_scale": cfg.rrc.crop_min_scale,
        "max_scale": cfg.rrc.crop_max_scale,
        "crop_size": cfg.crop_size,
    }
    if dataset == "custom":
        for name in ("mean", "std"):
            if name in cfg:
                arguments[name] = tuple(cfg[name])
    return prepare_transform(dataset, **arguments)


def pretrain_dataset(
    dataset: str, transform: Augmentation, path: Path, *, no_labels: bool
) -> SizedDataset[tuple[int, list[torch.Tensor], int]]:
    """Return the host's training dataset, items [index, crops, annotation]."""
    return prepare_datasets(
        dataset, transform, data_dir=path.parent, train_dir=path.name, no_labels=no_labels
    )


def h5_dataset(
    path: Path, transform: Augmentation | View, *, labelled: bool, with_number: bool
) -> SizedDataset[tuple[object, ...]]:
    """This line reads no HDF5 files.

    Raises:
        ValueError: always.
    """
    raise ValueError(
        f"data.format=h5 ({path}) needs solo-learn main: use a folder of images or Parquet files"
    )


def eval_transforms(dataset: str) -> tuple[View, View]:
    """Return the host's transforms for linear training and for evaluation."""
    return _prepare_transforms(dataset)


def linear_model(backbone: nn.Module, cfg: DictConfig) -> pl.LightningModule:
    """Return the host's linear evaluation of a frozen backbone."""
    extra = dict(OmegaConf.to_container(cfg.optimizer.get("kwargs") or OmegaConf.create()))  # type: ignore[arg-type]
    if cfg.optimizer.name == "sgd":
        extra.setdefault("momentum", 0.9)
    decay = cfg.scheduler.get("lr_decay_steps")
    return LinearModel(
        backbone,
        num_classes=cfg.data.num_classes,
        max_epochs=cfg.max_epochs,
        batch_size=cfg.optimizer.batch_size,
        optimizer=cfg.optimizer.name,
        lars=False,
        lr=cfg.optimizer.lr,
        weight_decay=cfg.optimizer.weight_decay,
        exclude_bias_n_norm=False,
        extra_optimizer_args=extra,
        scheduler=cfg.scheduler.name,
        lr_decay_steps=list(decay) if decay else None,
    )
