"""Give a method the data it is trained on: bank, order and seeded views. Same on both lines."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, DistributedSampler
from torchvision.datasets.vision import StandardTransform

from uic_plugin.data.centre import centre_view
from uic_plugin.data.images import annotations_of, fingerprint_of, relative_paths, sort_files
from uic_plugin.data.labels import match_labels, read_labels
from uic_plugin.data.views import (
    DrawSampler,
    SeededViews,
    loader_in_bank_order,
    view_loader,
)
from uic_plugin.pseudo_labels import BankSampler, ClassBalancedSampler, ShuffledSampler


def attach_data(method: Any, loader: Any) -> DataLoader[Any]:
    """Make the bank of a method for the loader's dataset, and the loader in the bank's order.

    Args:
        method: a `PseudoLabelMethod` with its `trainer`.
        loader: the training loader that the host made.

    Raises:
        ValueError: for DALI and other data whose order the plugin cannot decide.
    """
    if not isinstance(loader, DataLoader) or isinstance(
        loader.dataset, torch.utils.data.IterableDataset
    ):
        raise ValueError(
            f"uic decides the order of the images, which {_kind(loader)} does not allow: use "
            "data.format=image_folder (DALI shuffles on its own), with a torch DataLoader over a "
            "dataset that has a length"
        )
    dataset: Any = (
        loader.dataset.dataset if isinstance(loader.dataset, SeededViews) else loader.dataset
    )
    sort_files(dataset)
    options = method.options
    trainer = method.trainer
    method.attach(
        len(dataset),
        fingerprint_of(dataset),
        annotations_of(dataset),
        fixed_labels=_fixed_labels(dataset, options),
    )
    share = {"seed": method.seed, "rank": trainer.global_rank, "world_size": trainer.world_size}
    sampler: BankSampler
    if options.balanced_sampling:
        is_fixed = options.fixed_labels is not None
        sampler = ClassBalancedSampler(method.bank, **share, skip_empty=is_fixed)
    else:
        sampler = ShuffledSampler(method.bank, **share)
    if options.label_view == "center":
        method.label_loader = _centred_loader(loader, dataset, method)

    def take_skip() -> int:
        skip, method.images_to_skip = method.images_to_skip, 0
        return int(skip)

    return loader_in_bank_order(
        loader,
        DrawSampler(sampler, take_skip),
        seed=method.seed,
        on_bad_image=options.on_bad_image,
    )


def _fixed_labels(dataset: Any, options: Any) -> torch.Tensor | None:
    """Labels of the recipe's file in the order of the dataset, or None without a file."""
    if options.fixed_labels is None:
        return None
    paths = relative_paths(dataset)
    if paths is None:
        raise ValueError(
            "method_kwargs.fixed_labels matches labels to images by path, and this dataset is not "
            "made of files: write it as a folder of images"
        )
    table = read_labels(Path(options.fixed_labels).expanduser())
    labels = match_labels(table, paths, options.num_pseudo_classes, options.fixed_labels)
    return torch.from_numpy(labels)


def _centred_loader(loader: DataLoader[Any], dataset: Any, method: Any) -> DataLoader[Any]:
    """Centred views of this rank's share of all images, [index, image, annotation]."""
    centred = copy.copy(dataset)
    transform = getattr(dataset, "transform", None)
    if transform is None:
        raise ValueError(
            "method_kwargs.label_view=center needs a dataset with an augmentation of its own "
            f"(a `transform`), which {type(dataset).__name__} has not"
        )
    centred.transform = centre_view(transform)
    if hasattr(centred, "transforms"):  # torchvision's datasets call this one
        centred.transforms = StandardTransform(centred.transform)
    trainer = method.trainer
    return view_loader(
        centred,
        seed=method.seed,
        batch_size=loader.batch_size or 1,
        num_workers=loader.num_workers,
        on_bad_image=method.options.on_bad_image,
        # Pads to equal shares: an image may stand in two, and the label of the higher rank counts.
        sampler=DistributedSampler(centred, trainer.world_size, trainer.global_rank, shuffle=False),
    )


def _kind(loader: Any) -> str:
    names = [cls.__name__ for cls in type(loader).__mro__]
    if any("dali" in name.lower() for name in names):
        return "DALI"
    return names[0]
