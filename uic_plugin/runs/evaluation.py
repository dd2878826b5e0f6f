"""The host's own evaluators, unchanged, on the frozen network of a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import nn
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    RandomSampler,
    Sampler,
    SequentialSampler,
    TensorDataset,
)

from uic_plugin.hosts import load_host
from uic_plugin.hosts.lightning import pl
from uic_plugin.runs.datasets import eval_datasets, eval_loaders
from uic_plugin.runs.recipe_checks import check_epochs, check_number, check_whole
from uic_plugin.runs.run import Run
from uic_plugin.runs.stored import stored_features
from uic_plugin.runs.trainer import fit, make_trainer


@dataclass(frozen=True)
class Features:
    """Frozen features of annotated images.

    Attributes:
        train, val: (N, D) float32 features of one centered view, network in eval mode.
        train_targets, val_targets: (N,) int64 annotations.
    """

    train: torch.Tensor
    train_targets: torch.Tensor
    val: torch.Tensor
    val_targets: torch.Tensor


@torch.no_grad()
def extract_features(run: Run) -> Features:
    """Return the features of a run's annotated images, computed on the run's device."""
    backbone = run.backbone.eval().to(run.device)
    parts: list[torch.Tensor] = []
    for loader in eval_loaders(run.config, run.source):
        features, targets = [], []
        for images, target in loader:
            features.append(backbone(images.to(run.device)).float().cpu())
            targets.append(target)
        parts += [torch.cat(features), torch.cat(targets)]
    return Features(*parts)


def read_features(run: Run, stores: Sequence[Path]) -> Features:
    """Return the features of a run's annotated images from stores, see `stored_features`."""
    train, val = eval_datasets(run.config, run.source)
    one, two = stored_features(run, stores, (train, val), val.transform).sets
    return Features(one.features, one.classes, two.features, two.classes)


def knn_accuracy(features: Features, *, k: int, temperature: float, distance: str) -> float:
    """Return top-1 in percent of the host's weighted k-NN classifier.

    With distance "cosine" features are L2-normalised first: the host's classifier takes plain dot
    products and leaves that to its caller.
    """
    if distance not in ("cosine", "euclidean"):
        raise ValueError(f"knn.distance must be cosine or euclidean, got {distance!r}")
    if type(k) is not int or k < 1:
        raise ValueError(f"knn.k must be a whole number of at least 1, got {k!r}")
    if type(temperature) not in (int, float) or temperature <= 0:
        raise ValueError(f"knn.temperature must be above 0, got {temperature!r}")
    train, val = features.train, features.val
    if distance == "cosine":
        train = nn.functional.normalize(train, dim=1)
        val = nn.functional.normalize(val, dim=1)
    return load_host().knn_accuracy(
        (train, features.train_targets),
        (val, features.val_targets),
        k=k,
        temperature=temperature,
        distance=distance,
    )


class _Identity(nn.Module):
    """Stands for the backbone where features are computed already."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return features.flatten(1)


def linear_accuracy(run: Run, features: Features | None = None) -> float:
    """Return top-1 in percent of the host's `LinearModel` on a frozen backbone, once trained.

    Args:
        run: whose backbone to evaluate; `config.linear` has the settings.
        features: computed ones, used with `linear.augment=false`.

    Raises:
        ValueError: with fewer than five annotated classes, which the host's top-5 needs.
    """
    cfg, source = run.config, run.source
    if source.num_classes < 5:
        raise ValueError(
            f"the host's linear evaluation reports top-5 and needs at least 5 annotated classes, "
            f"got {source.num_classes}: use uic knn"
        )
    settings = cfg.linear
    _check_linear(settings)
    backbone = run.backbone.eval()
    if settings.augment:
        train, val = eval_loaders(cfg, source, augment=True, batch_size=settings.batch_size)
    else:
        features = features or extract_features(run)
        backbone = _Identity(features.train.shape[1])
        train = _feature_loader(features.train, features.train_targets, settings.batch_size)
        val = _feature_loader(features.val, features.val_targets, 4096, shuffle=False)
    pl.seed_everything(cfg.seed)
    model = load_host().linear_model(backbone, _linear_recipe(settings, source.num_classes))
    trainer = make_trainer(cfg, max_epochs=settings.max_epochs, callbacks=[], evaluates=True)
    fit(trainer, model, train, val)
    return float(trainer.callback_metrics["val_acc1"])


def _check_linear(settings: DictConfig) -> None:
    """Refuse values of the `linear` section that are no numbers, or below their range."""
    for name in ("max_epochs", "batch_size"):
        check_whole(f"linear.{name}", settings[name], 1)
    for name in ("lr", "weight_decay"):
        check_number(f"linear.{name}", settings[name])
    check_epochs("linear.lr_decay_steps", settings.lr_decay_steps or [])


def _linear_recipe(settings: DictConfig, num_classes: int) -> DictConfig:
    """Return the recipe of the host's linear evaluation for a run's `linear` section."""
    return OmegaConf.create(
        {
            "data": {"num_classes": num_classes},
            "max_epochs": settings.max_epochs,
            "accumulate_grad_batches": 1,
            "optimizer": {
                "name": "sgd",
                "batch_size": settings.batch_size,
                "lr": settings.lr * settings.batch_size / 256,
                "weight_decay": settings.weight_decay,
                "kwargs": {"momentum": 0.9},
            },
            "scheduler": {
                "name": "step",
                "lr_decay_steps": list(settings.lr_decay_steps),
                "interval": "epoch",
            },
            "performance": {"disable_channel_last": True},
        }
    )


def _feature_loader(
    features: torch.Tensor, targets: torch.Tensor, batch_size: int, *, shuffle: bool = True
) -> DataLoader[Any]:
    data = TensorDataset(features, targets)
    order: Sampler[int] = RandomSampler(data) if shuffle else SequentialSampler(data)
    batches = BatchSampler(order, min(batch_size, len(data)), drop_last=False)
    # a whole batch at once: one by one takes longer than training the classifier
    return DataLoader(data, sampler=batches, batch_size=None)
