"""Give a method the data it is trained on: bank, order and seeded views. Same on both lines."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils.data import DataLoader

from uic_plugin.data.images import annotations_of, fingerprint_of, sort_files
from uic_plugin.data.views import DrawSampler, SeededViews, loader_in_bank_order
from uic_plugin.pseudo_labels import ClassBalancedSampler, ShuffledSampler


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
    method.attach(len(dataset), fingerprint_of(dataset), annotations_of(dataset))
    kind = ClassBalancedSampler if options.balanced_sampling else ShuffledSampler
    sampler = kind(
        method.bank,
        seed=method.seed,
        rank=trainer.global_rank,
        world_size=trainer.world_size,
    )

    def take_skip() -> int:
        skip, method.images_to_skip = method.images_to_skip, 0
        return int(skip)

    return loader_in_bank_order(
        loader,
        DrawSampler(sampler, take_skip),
        seed=method.seed,
        on_bad_image=options.on_bad_image,
    )


def _kind(loader: Any) -> str:
    names = [cls.__name__ for cls in type(loader).__mro__]
    if any("dali" in name.lower() for name in names):
        return "DALI"
    return names[0]
