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
from uic_plugin.data.listed import FlatImages, decode
from uic_plugin.data.loaders import view_loader
from uic_plugin.data.packed import PackedImages, check_decoded_size, is_packed, open_packed
from uic_plugin.data.packed_copy import packed_copy
from uic_plugin.data.parquet import ParquetImages
from uic_plugin.data.resolve import DataSource, class_folders
from uic_plugin.data.validation import keep_part
from uic_plugin.hosts import load_host
from uic_plugin.runs.engine import batch_views, trains_on_cpu
from uic_plugin.runs.performance import setting


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
    dataset: Any = None
    if source.index is not None or source.format != "image_folder":
        _check_crops(cfg, source)
        dataset = _listed(source, source.train, transform, with_number=True)
    elif source.has_copy:
        dataset = _copied(source.train, transform, labelled=source.labelled, with_number=True)
    if dataset is not None:
        return _training_part(dataset, cfg)
    is_flat = source.reader == "custom" and not class_folders(source.train)
    if is_flat:
        dataset = FlatImages(source.train, transform)
    else:
        dataset = host.pretrain_dataset(source.reader, transform, source.train, no_labels=False)
        if hasattr(dataset, "loader"):  # torchvision's: neither upright nor more than 8 bits
            dataset.loader = decode
    if not source.labelled and not is_flat:
        # the host reads these with annotations whatever one says: nobody is to see them
        if hasattr(dataset, "samples"):
            dataset.samples = [(path, -1) for path, _ in dataset.samples]
        else:
            name = "labels" if hasattr(dataset, "labels") else "targets"
            setattr(dataset, name, np.full(len(dataset), -1))
    sort_files(dataset)
    return _training_part(dataset, cfg)


def _training_part(dataset: Any, cfg: DictConfig) -> Any:
    """Return the share of the training images that a recipe trains on."""
    _take_fraction(dataset, cfg.data.get("fraction", -1))
    share = cfg.data.get("held_out") or 0
    return keep_part(dataset, share, "rest") if share else dataset


def _listed(
    source: DataSource, path: Path, transform: Callable[[Any], Any], *, with_number: bool = False
) -> Any:
    """Return images that no walk through folders finds."""
    given: dict[str, Any] = {"labelled": source.labelled, "with_number": with_number}
    if source.format == "packed":
        return PackedImages(open_packed(path), transform, **given)
    if source.format == "parquet":
        return ParquetImages(path, transform, **given)
    if source.format == "h5":
        return load_host().h5_dataset(path, transform, **given)
    if source.index is None:
        raise ValueError("a list of images needs data.index")
    return IndexedImages(path, transform, read_index(source.index), **given)


def _annotated(folder: Path, transform: Callable[[Any], Any], *, has_copy: bool = False) -> Any:
    """Return the images of a folder with class folders, or of a packed one."""
    if is_packed(folder):
        return PackedImages(open_packed(folder), transform)
    copied = _copied(folder, transform) if has_copy else None
    return copied or ImageFolder(str(folder), transform, loader=decode)


def _copied(folder: Path, transform: Callable[[Any], Any], **given: bool) -> PackedImages | None:
    """Return the images of a folder from its decoded copy, or None if it has none."""
    store = packed_copy(folder)
    if store is None:
        return None
    return PackedImages(store, transform, originals=folder, **given)


def _check_crops(cfg: DictConfig, source: DataSource) -> None:
    """Refuse images that were packed with fewer pixels than a crop has."""
    if source.format == "packed":
        largest = max(int(pipeline.crop_size) for pipeline in cfg.augmentations)
        check_decoded_size(open_packed(source.train), largest)


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

    With `data.held_out` the held-out share of the training images takes the place of the test
    images, of which none is read.

    Raises:
        ValueError: without annotations or without test images.
    """
    share = cfg.data.get("held_out") or 0
    if share:
        if not source.labelled:
            raise ValueError("data.held_out is evaluated on and needs annotated training images")
        parts = zip((train_transform, val_transform), ("rest", "held_out"), strict=True)
        rest, held_out = (
            keep_part(_annotated_training(cfg, source, transform), share, part)  # type: ignore[arg-type]
            for transform, part in parts
        )
        return rest, held_out
    if not source.labelled or source.val is None:
        raise ValueError(
            "evaluation needs annotated images: data.train_path and data.val_path with one "
            "subfolder per class"
        )
    train = _annotated_training(cfg, source, train_transform)
    if source.format != "image_folder":
        if source.format == "packed":
            return train, _annotated(source.val, val_transform)
        return train, _listed(source, source.val, val_transform)
    if source.reader == "custom":
        return train, _annotated(source.val, val_transform, has_copy=source.has_copy)
    return train, _torchvision(source, source.val, val_transform, is_train=False)


def _annotated_training(
    cfg: DictConfig, source: DataSource, transform: Callable[[Any], Any]
) -> Any:
    """Return the fraction of the annotated training images that a recipe takes."""
    if source.format == "packed":
        _check_crops(cfg, source)
        train: Any = _listed(source, source.train, transform)
    elif source.format != "image_folder" or source.index is not None:
        return _listed(source, source.train, transform)
    elif source.reader == "custom":
        train = _annotated(source.train, transform, has_copy=source.has_copy)
    else:
        train = _torchvision(source, source.train, transform, is_train=True)
    _take_fraction(train, cfg.data.get("fraction", -1))
    return train


def _torchvision(
    source: DataSource, path: Path, transform: Callable[[Any], Any], *, is_train: bool
) -> Any:
    """Return images that torchvision reads."""
    import torchvision.datasets

    kind = getattr(torchvision.datasets, source.reader.upper())
    split: dict[str, Any] = {"train": is_train}
    if source.reader == "stl10":
        split = {"split": "train" if is_train else "test"}
    return kind(path, transform=transform, download=True, **split)


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
    if fraction is not None and type(fraction) not in (int, float):
        raise ValueError(f"data.fraction must be a number below 1, or -1, got {fraction!r}")
    if fraction is not None and fraction != -1 and not 0 < fraction < 1:
        raise ValueError(
            f"data.fraction must be above 0 and below 1, or -1 for all images, got {fraction!r}"
        )
    if fraction is None or fraction <= 0:
        return
    from sklearn.model_selection import train_test_split

    if isinstance(dataset, PackedImages):
        classes = dataset.targets if dataset.targets.min() >= 0 else None
        rows: Any = np.arange(len(dataset))
        rows, _ = train_test_split(rows, train_size=fraction, stratify=classes, random_state=42)
        dataset.keep(rows)
    elif hasattr(dataset, "samples"):
        paths, annotations = zip(*dataset.samples, strict=True)
        stratify = annotations if min(annotations) >= 0 else None
        paths, _, annotations, _ = train_test_split(
            paths, annotations, train_size=fraction, stratify=stratify, random_state=42
        )
        dataset.samples = list(zip(paths, annotations, strict=True))
    elif isinstance(getattr(dataset, "images", None), list):
        kept, _ = train_test_split(dataset.images, train_size=fraction, random_state=42)
        dataset.images = sorted(kept)  # the order of labels, so that of the list of images too
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
        persistent=bool(setting(cfg, "persistent_workers")),
    )
