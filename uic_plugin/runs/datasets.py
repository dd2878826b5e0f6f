"""The host's datasets and transforms, from a recipe's data section."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder

from uic_plugin.augmentation import BatchViews
from uic_plugin.data.center import center_crop
from uic_plugin.data.draws import EpochOrder
from uic_plugin.data.images import relative_paths, sort_files
from uic_plugin.data.index import IndexedImages, read_index
from uic_plugin.data.loaders import view_loader
from uic_plugin.data.parquet import ParquetImages
from uic_plugin.data.resolve import DataSource, class_folders
from uic_plugin.hosts import load_host
from uic_plugin.runs.engine import batch_views, trains_on_cpu


def pretrain_loader(cfg: DictConfig, source: DataSource) -> DataLoader[Any]:
    """Return shuffled batches [index, crops, annotation] of the training images."""
    dataset = pretrain_dataset(cfg, source)
    views = batch_views(cfg, dataset.transform)
    order = None if views is None else EpochOrder(dataset, cfg.seed)
    loader = image_loader(dataset, cfg, shuffle=True, drop_last=True, order=order, views=views)
    if len(loader) == 0:
        raise ValueError(
            f"a batch of {cfg.optimizer.batch_size} images is more than the {len(dataset)} images "
            f"of an epoch: set optimizer.batch_size to at most {len(dataset)}"
        )
    return loader


def training_paths(cfg: DictConfig, source: DataSource) -> list[str]:
    """Return paths of the training images below their folder, in the order of their index.

    Raises:
        ValueError: for images that lie in no files of their own.
    """
    paths = relative_paths(pretrain_dataset(cfg, source))
    if paths is None:
        raise ValueError(
            f"{source.train} holds no image files of their own: train and label on a folder of "
            f"images"
        )
    return paths


def pretrain_dataset(cfg: DictConfig, source: DataSource) -> Any:
    """Return the training images, items [number, crops, annotation]."""
    host = load_host()
    transform = host.augmentation(source.transforms, cfg.augmentations)
    if source.index is not None or source.format != "image_folder":
        dataset = _listed(source, source.train, transform, with_number=True)
        _take_fraction(dataset, cfg.data.get("fraction", -1))
        return dataset
    is_flat = source.reader == "custom" and not class_folders(source.train)
    dataset = host.pretrain_dataset(source.reader, transform, source.train, no_labels=is_flat)
    if not source.labelled and not is_flat:
        # the host reads these with annotations whatever one says: nobody is to see them
        if hasattr(dataset, "samples"):
            dataset.samples = [(path, -1) for path, _ in dataset.samples]
        else:
            name = "labels" if hasattr(dataset, "labels") else "targets"
            setattr(dataset, name, np.full(len(dataset), -1))
    sort_files(dataset)
    _take_fraction(dataset, cfg.data.get("fraction", -1))
    return dataset


def _listed(
    source: DataSource, path: Path, transform: Callable[[Any], Any], *, with_number: bool = False
) -> Any:
    """Return images that no walk through folders finds."""
    given: dict[str, Any] = {"labelled": source.labelled, "with_number": with_number}
    if source.format == "parquet":
        return ParquetImages(path, transform, **given)
    if source.format == "h5":
        return load_host().h5_dataset(path, transform, **given)
    if source.index is None:
        raise ValueError("a list of images needs data.index")
    return IndexedImages(path, transform, read_index(source.index), **given)


def eval_loaders(
    cfg: DictConfig, source: DataSource, *, augment: bool = False, batch_size: int | None = None
) -> tuple[DataLoader[Any], DataLoader[Any]]:
    """Return annotated training and test images, with the host's transforms for evaluation.

    Args:
        cfg: the recipe.
        source: where the images are; must be labelled.
        augment: random crops for training, as the host's linear evaluation has them.
        batch_size: images in a batch; by default the recipe's own.
    """
    train, val = eval_datasets(cfg, source, augment=augment)
    return (
        image_loader(train, cfg, shuffle=augment, batch_size=batch_size),
        image_loader(val, cfg, batch_size=batch_size),
    )


def eval_datasets(cfg: DictConfig, source: DataSource, *, augment: bool = False) -> tuple[Any, Any]:
    """Return annotated training and test images as datasets.

    Raises:
        ValueError: without annotations or without test images.
    """
    train_transform, val_transform = _eval_transforms(cfg, source)
    return annotated_datasets(
        cfg, source, train_transform if augment else val_transform, val_transform
    )


def annotated_datasets(
    cfg: DictConfig,
    source: DataSource,
    train_transform: Callable[[Any], Any],
    val_transform: Callable[[Any], Any],
) -> tuple[Any, Any]:
    """Return annotated training and test images with given transforms, items (view, class).

    Raises:
        ValueError: without annotations or without test images.
    """
    if not source.labelled or source.val is None:
        raise ValueError(
            "evaluation needs annotated images: data.train_path and data.val_path with one "
            "subfolder per class"
        )
    kinds = (train_transform, val_transform)
    if source.format != "image_folder":
        return _listed(source, source.train, kinds[0]), _listed(source, source.val, kinds[1])
    if source.index is not None:
        train = _listed(source, source.train, kinds[0])
        return train, ImageFolder(str(source.val), kinds[1])
    if source.reader == "custom":
        train = ImageFolder(str(source.train), kinds[0])
        val = ImageFolder(str(source.val), kinds[1])
    else:
        import torchvision.datasets

        kind = getattr(torchvision.datasets, source.reader.upper())
        splits: list[dict[str, Any]] = [{"split": "train"}, {"split": "test"}]
        if source.reader != "stl10":
            splits = [{"train": True}, {"train": False}]
        train = kind(source.train, transform=kinds[0], download=True, **splits[0])
        val = kind(source.val, transform=kinds[1], download=True, **splits[1])
    _take_fraction(train, cfg.data.get("fraction", -1))
    return train, val


def _eval_transforms(
    cfg: DictConfig, source: DataSource
) -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
    """Return the host's transforms, at the recipe's size where the host has none."""
    if source.transforms != "custom":
        return load_host().eval_transforms(source.transforms)
    first = cfg.augmentations[0]
    size = first.crop_size
    mean = tuple(first.get("mean", (0.485, 0.456, 0.406)))
    std = tuple(first.get("std", (0.228, 0.224, 0.225)))
    tail = [transforms.ToTensor(), transforms.Normalize(mean, std)]
    scale = (first.rrc.crop_min_scale, first.rrc.crop_max_scale)
    flip = transforms.RandomHorizontalFlip(first.horizontal_flip.prob)
    return (
        transforms.Compose([transforms.RandomResizedCrop(size, scale), flip, *tail]),
        transforms.Compose([*center_crop(size), *tail]),
    )


def _take_fraction(dataset: Any, fraction: float) -> None:
    """Keep a stratified part, the same one that solo-learn main's `data.fraction` keeps."""
    if fraction is None or fraction <= 0:
        return
    if fraction >= 1:
        raise ValueError(f"data.fraction must lie below 1, or be -1 for all images; got {fraction}")
    from sklearn.model_selection import train_test_split

    if hasattr(dataset, "samples"):
        paths, annotations = zip(*dataset.samples, strict=True)
        stratify = annotations if min(annotations) >= 0 else None
        paths, _, annotations, _ = train_test_split(
            paths, annotations, train_size=fraction, stratify=stratify, random_state=42
        )
        dataset.samples = list(zip(paths, annotations, strict=True))
    elif isinstance(getattr(dataset, "images", None), list):
        dataset.images, _ = train_test_split(dataset.images, train_size=fraction, random_state=42)
    else:
        raise ValueError("data.fraction works on folders of images only: set it to -1")


def image_loader(
    dataset: Any,
    cfg: DictConfig,
    *,
    shuffle: bool = False,
    drop_last: bool = False,
    batch_size: int | None = None,
    order: EpochOrder | None = None,
    views: BatchViews | None = None,
) -> DataLoader[Any]:
    """Return a loader with the recipe's workers and its policy for unreadable images."""
    return view_loader(
        dataset,
        seed=cfg.seed,
        batch_size=batch_size or cfg.optimizer.batch_size,
        num_workers=cfg.data.num_workers,
        on_bad_image=cfg.data.on_bad_image,
        max_bad_images=cfg.data.get("max_bad_images"),
        sampler=order,
        views=views,
        in_workers=trains_on_cpu(cfg),
        shuffle=shuffle,
        drop_last=drop_last,
    )
