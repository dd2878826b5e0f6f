"""The host's own evaluators, unchanged, on the frozen network of a run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from uic_plugin.data.resolve import DataSource
from uic_plugin.hosts import backbone_of, load_host
from uic_plugin.runs.datasets import eval_loaders
from uic_plugin.runs.folder import read_checkpoint
from uic_plugin.runs.settings import build_method, prepare_config
from uic_plugin.runs.training import fit, make_trainer


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


def load_method(
    cfg: DictConfig, checkpoint: Path | None, *, needs_images: bool = True
) -> tuple[Any, DictConfig, DataSource]:
    """A run's method with its weights, in eval mode; with its random ones without a checkpoint.

    Args:
        cfg: the run's recipe.
        checkpoint: its weights.
        needs_images: whether its images have to be there; the source is empty if not.

    Returns:
        The method, the prepared recipe and where its images are.

    Raises:
        ValueError: if the checkpoint's weights do not fit the recipe's network.
    """
    cfg, source = prepare_config(cfg, needs_images=needs_images)
    if checkpoint is None:
        return build_method(cfg).eval(), cfg, source
    state = read_checkpoint(checkpoint)["state_dict"]
    # the online classifier has as many outputs as the images that it was trained beside
    for name in ("classifier.weight", "momentum_classifier.weight"):
        if name in state:
            cfg.data.num_classes = len(state[name])
    method = build_method(cfg)
    missing, unexpected = [], []
    try:
        result = method.load_state_dict(state, strict=False)
        missing, unexpected = result.missing_keys, result.unexpected_keys
    except RuntimeError as error:
        raise ValueError(
            f"the weights in {checkpoint} are of another network than the recipe's "
            f"{cfg.backbone.name}: {str(error).splitlines()[1].strip()}"
        ) from error
    if missing or unexpected:
        raise ValueError(
            f"the weights in {checkpoint} are not of method {cfg.method} with "
            f"{cfg.backbone.name}: missing {missing[:2]}, unknown {unexpected[:2]}"
        )
    cfg.data.num_classes = source.num_classes
    return method.eval(), cfg, source


@torch.no_grad()
def extract_features(method: Any, cfg: DictConfig, source: DataSource) -> Features:
    """Features of the annotated images, on the fastest device there is."""
    device = torch.device(
        "cuda" if torch.cuda.is_available() and cfg.accelerator != "cpu" else "cpu"
    )
    backbone = backbone_of(method).eval().to(device)
    parts: list[torch.Tensor] = []
    for loader in eval_loaders(cfg, source):
        features, targets = [], []
        for images, target in loader:
            features.append(backbone(images.to(device)).float().cpu())
            targets.append(target)
        parts += [torch.cat(features), torch.cat(targets)]
    return Features(*parts)


def knn_accuracy(features: Features, *, k: int, temperature: float, distance: str) -> float:
    """Top-1 in percent of the host's weighted k-NN classifier.

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
    classifier = load_host().WeightedKNNClassifier(k=k, T=temperature, distance_fx=distance)
    classifier.update(
        train_features=train,
        train_targets=features.train_targets,
        test_features=val,
        test_targets=features.val_targets,
    )
    return float(classifier.compute()[0])


class _Identity(nn.Module):
    """Stands for the backbone where features are computed already."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return features.flatten(1)


def linear_accuracy(
    method: Any, cfg: DictConfig, source: DataSource, features: Features | None = None
) -> float:
    """Top-1 in percent of the host's `LinearModel` on the frozen backbone, after its last epoch.

    Args:
        method: whose backbone to evaluate.
        cfg: the prepared recipe; `cfg.linear` has the settings.
        source: where the images are.
        features: computed ones, used with `linear.augment=false`.

    Raises:
        ValueError: with fewer than five annotated classes, which the host's top-5 needs.
    """
    if source.num_classes < 5:
        raise ValueError(
            f"the host's linear evaluation reports top-5 and needs at least 5 annotated classes, "
            f"got {source.num_classes}: use uic knn"
        )
    host = load_host()
    settings = cfg.linear
    linear_cfg = OmegaConf.create(
        {
            "data": {"num_classes": source.num_classes},
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
    backbone = backbone_of(method).eval()
    if settings.augment:
        train, val = eval_loaders(cfg, source, augment=True, batch_size=settings.batch_size)
    else:
        features = features or extract_features(method, cfg, source)
        backbone = _Identity(features.train.shape[1])
        train = _feature_loader(features.train, features.train_targets, settings.batch_size)
        val = _feature_loader(features.val, features.val_targets, 4096, shuffle=False)
    host.pl.seed_everything(cfg.seed)
    model = host.linear_model(backbone, linear_cfg)
    trainer = make_trainer(cfg, max_epochs=settings.max_epochs, callbacks=[], evaluates=True)
    fit(trainer, model, train, val)
    return float(trainer.callback_metrics["val_acc1"])


def _feature_loader(
    features: torch.Tensor, targets: torch.Tensor, batch_size: int, *, shuffle: bool = True
) -> DataLoader[Any]:
    data = TensorDataset(features, targets)
    return DataLoader(data, batch_size=min(batch_size, len(data)), shuffle=shuffle)
