"""Adapter for lightly (1.5.24 and later): its modules, transforms and evaluators, Lightning 2."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightly.utils.benchmarking import LinearClassifier
from omegaconf import DictConfig, OmegaConf
from torch import nn
from torch.optim.lr_scheduler import MultiStepLR
from torchvision import transforms

from uic_plugin.hosts.lightly_augmentation import PRESETS, augmentation
from uic_plugin.hosts.lightly_comparators import COMPARATORS
from uic_plugin.hosts.lightly_datasets import pretrain_dataset
from uic_plugin.hosts.lightly_knn import knn_accuracy
from uic_plugin.hosts.lightly_method import hosted
from uic_plugin.hosts.lightly_module import OPTIMIZERS, SCHEDULERS, Training
from uic_plugin.hosts.lightly_network import RESNETS, backbone_names
from uic_plugin.hosts.lightning import pl
from uic_plugin.hosts.protocol import Augmentation, SizedDataset, View
from uic_plugin.methods import OWN_METHODS
from uic_plugin.methods.base import HostMethod

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

BACKBONE_KEY = "backbone"
_OWN: dict[str, Any] = {name: hosted(core) for name, core in OWN_METHODS.items()}
METHODS: dict[str, type[HostMethod]] = {**_OWN, **COMPARATORS}
UICMethod = METHODS["uic"]


def register() -> None:
    """lightly has no registry of methods: `METHODS` is this package's own."""


def build_method(cfg: DictConfig) -> HostMethod:
    """Build a method of the registry from a composed recipe, learning rates as they are."""
    plain: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True)  # type: ignore[assignment]
    knn, momentum = plain["knn_eval"], plain.get("momentum") or {}
    kwargs = dict(plain["backbone"].get("kwargs") or {})
    if plain["backbone"]["name"] in RESNETS:
        kwargs["small_images"] = plain["data"]["dataset"] in ("cifar10", "cifar100")
    given = dict(plain.get("method_kwargs") or {})
    kind: Any = METHODS[cfg.method]
    if cfg.method in OWN_METHODS:
        given["seed"] = plain["seed"]
    elif kind.has_average:
        given |= {name: momentum[name] for name in ("base_tau", "final_tau") if name in momentum}
    method = kind(
        plain["optimizer"]["batch_size"],
        plain["data"]["num_classes"],
        knn.get("k", 20),
        plain.get("knn", {}).get("temperature", 0.07),
        backbone=plain["backbone"]["name"],
        backbone_kwargs=kwargs,
        training=_training(plain["optimizer"], plain["scheduler"]),
        **given,
    )
    method.is_of_recipe, method.knn_eval = True, bool(knn["enabled"])
    return method  # type: ignore[no-any-return]


def _training(optimizer: dict[str, Any], scheduler: dict[str, Any]) -> Training:
    """Return what a recipe says of the optimizer and its learning rate."""
    return Training(
        optimizer=optimizer["name"],
        lr=optimizer["lr"],
        classifier_lr=optimizer["classifier_lr"],
        lr_images=None,
        weight_decay=optimizer["weight_decay"],
        optimizer_kwargs=dict(optimizer.get("kwargs") or {}),
        schedule=scheduler["name"],
        interval=scheduler.get("interval", "epoch"),
        warmup_epochs=scheduler.get("warmup_epochs", 10),
        warmup_start_lr=scheduler.get("warmup_start_lr", 3e-5),
        min_lr=scheduler.get("min_lr", 0.0),
        lr_decay_steps=tuple(scheduler.get("lr_decay_steps") or ()),
    )


def h5_dataset(
    path: Path, transform: Augmentation | View, *, labelled: bool, with_number: bool
) -> SizedDataset[tuple[object, ...]]:
    """lightly reads no HDF5 files.

    Raises:
        ValueError: always.
    """
    raise ValueError(
        f"data.format=h5 ({path}) needs solo-learn main: use a folder of images or Parquet files"
    )


def eval_transforms(dataset: str) -> tuple[View, View]:
    """Return the transforms for linear training and for evaluation of a known dataset."""
    size, mean, std = PRESETS[dataset]
    tail = [transforms.ToTensor(), transforms.Normalize(mean, std)]
    train = [transforms.RandomResizedCrop(size, (0.08, 1.0)), transforms.RandomHorizontalFlip()]
    whole: list[Any] = []  # CIFAR's images have this size already
    if size >= 224:
        whole = [transforms.Resize(256), transforms.CenterCrop(size)]
    elif size > 32:
        whole = [transforms.Resize((size, size))]
    return transforms.Compose([*train, *tail]), transforms.Compose([*whole, *tail])


class Linear(LinearClassifier):
    """lightly's linear evaluation of a frozen backbone, with a recipe's optimizer and schedule.

    It also logs `val_acc1`, top-1 in percent.

    Args:
        backbone: images (B, 3, H, W) to features (B, D).
        cfg: `optimizer` and `scheduler` of the evaluation, `data.num_classes`.
    """

    def __init__(self, backbone: Any, cfg: DictConfig) -> None:
        width = getattr(backbone, "num_features", None) or backbone.inplanes
        super().__init__(
            backbone,
            batch_size_per_device=cfg.optimizer.batch_size,
            lr=cfg.optimizer.lr,
            feature_dim=width,
            num_classes=cfg.data.num_classes,
        )
        plain: Any = OmegaConf.to_container(cfg, resolve=True)
        self.recipe: dict[str, Any] = plain
        backbone.requires_grad_(False)

    def validation_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        """Log the loss and accuracies of a batch (images, targets)."""
        loss, topk = self.shared_step(batch, batch_idx)
        count = len(batch[1])
        self.log("val_loss", loss, sync_dist=True, batch_size=count)
        for name, k in (("val_acc1", 1), ("val_acc5", 5)):
            self.log(name, 100 * topk[k], sync_dist=True, batch_size=count)
        return loss

    def configure_optimizers(self) -> Any:
        """Return the recipe's SGD and its steps."""
        optimizer, scheduler = self.recipe["optimizer"], self.recipe["scheduler"]
        sgd = torch.optim.SGD(
            self.get_trainable_parameters(),
            lr=optimizer["lr"],
            weight_decay=optimizer["weight_decay"],
            **{"momentum": 0.9, **(optimizer.get("kwargs") or {})},
        )
        steps = scheduler.get("lr_decay_steps") or []
        return [sgd], [MultiStepLR(sgd, list(steps), gamma=0.1)]


def linear_model(backbone: nn.Module, cfg: DictConfig) -> pl.LightningModule:
    """Return lightly's linear evaluation of a frozen backbone."""
    return Linear(backbone, cfg)
