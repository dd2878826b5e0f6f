"""Give a method the data it is trained on: bank, order and seeded views. Same on both lines."""

from __future__ import annotations

import time
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, DistributedSampler

from uic_plugin.augmentation import BatchViews
from uic_plugin.data.center import center_view
from uic_plugin.data.draws import DrawnShare
from uic_plugin.data.images import (
    annotations_of,
    fingerprint_of,
    path_of,
    relative_paths,
    sort_files,
)
from uic_plugin.data.labels import match_labels, read_labels
from uic_plugin.data.loaders import loader_in_bank_order, view_loader
from uic_plugin.data.raw import RawImages, with_transform
from uic_plugin.data.views import SeededViews
from uic_plugin.hosts.guards import write_whole_checkpoints
from uic_plugin.hosts.pipelines import center_views_of
from uic_plugin.methods import PseudoLabelMethod
from uic_plugin.pseudo_labels import BankSampler, ClassBalancedSampler, ShuffledSampler
from uic_plugin.ranks import RankInfo
from uic_plugin.threads import log_spinning_advice


def attach_method(method: Any, source: Any) -> None:
    """Give a method of ours what it needs of the training images, when training is set up.

    Args:
        method: with its `trainer`.
        source: Lightning's holder of the training loader; gets the loader in the bank's order.

    Raises:
        ValueError: for DALI and other data whose order the plugin cannot decide.
    """
    is_streaming = isinstance(method, PseudoLabelMethod) and not method.plan.keeps_labels
    is_numbered = _is_numbered(source.instance)
    if not is_numbered and not is_streaming:
        raise ValueError(
            f"{method.name} needs every image by its number, which {_kind(source.instance)} does "
            "not allow: use data.format=image_folder (DALI shuffles on its own), with a torch "
            "DataLoader over a dataset that has a length"
        )
    write_whole_checkpoints(method.trainer)
    if method.trainer.is_global_zero:
        log_spinning_advice()  # under the host's own scripts, which do not set how threads wait
    if not is_numbered:  # a stream in an order of its own
        method.attach(0, None, None)
        return
    method.image_name = partial(path_of, images_of(source.instance))
    if isinstance(method, PseudoLabelMethod):
        source.instance = attach_data(method, source.instance)
    else:
        images = images_of(source.instance)
        sort_files(images)
        method.attach_images(len(images), fingerprint_of(images))


def attach_data(method: Any, loader: Any) -> DataLoader[Any]:
    """Make the bank of a method for the loader's dataset, and the loader in the bank's order.

    Args:
        method: a `PseudoLabelMethod` with its `trainer`.
        loader: the training loader that the host made.
    """
    dataset = images_of(loader)
    sort_files(dataset)
    options = method.options
    trainer = method.trainer
    is_new = method.bank is None
    method.attach(
        len(dataset),
        fingerprint_of(dataset),
        annotations_of(dataset),
        fixed_labels=_fixed_labels(dataset, options),
        rank=RankInfo(
            trainer.strategy.root_device,
            trainer.node_rank,
            trainer.local_rank,
            trainer.num_devices,
        ),
    )
    share = {"seed": method.seed, "rank": trainer.global_rank, "world_size": trainer.world_size}
    share |= {"take_skip": method.take_skip, "max_shuffled": options.max_shuffled}
    sampler: BankSampler
    if method.plan.is_balanced:
        sampler = ClassBalancedSampler(
            method.bank,
            **share,
            skip_empty=method.fixer is None,
            more_banks=method.banks[1:],
        )
    else:
        sampler = ShuffledSampler(method.label_stores[0], **share)
    # Lightning 2 does not know its checkpoint yet; `uic pretrain` tells the method
    resumes = method.resumes or trainer.ckpt_path is not None
    if method.plan.first_pass and is_new and not resumes:
        method.label_loader = _label_loader(loader, dataset, method, method.plan.first_pass)
        _begin_labels(method)
        method.wait_for_writers()
    if method.plan.boundary_pass:
        method.label_loader = _label_loader(loader, dataset, method, method.plan.boundary_pass)
    ordered = loader_in_bank_order(
        loader,
        sampler,
        seed=method.seed,
        on_bad_image=options.on_bad_image,
        max_bad_images=options.max_bad_images,
    )
    method.bad_images = ordered.dataset.bad_images  # type: ignore[attr-defined]
    return ordered


def images_of(loader: Any) -> Any:
    """Return the host's dataset below ours."""
    dataset = getattr(loader, "dataset", None)
    return dataset.dataset if isinstance(dataset, SeededViews) else dataset


def _is_numbered(loader: Any) -> bool:
    """Return whether images can be asked for by their number."""
    stream = torch.utils.data.IterableDataset
    return isinstance(loader, DataLoader) and not isinstance(loader.dataset, stream)


def _begin_labels(method: Any) -> None:
    """Set the labels of the first epoch by a pass on the device of the training.

    Here, before Lightning moves the network there: its first iterator over the training images
    starts, and with workers reads the order, before any hook that comes later.
    """
    started, cpu_started = time.perf_counter(), time.process_time()
    trainer = method.trainer
    before = next(method.parameters()).device
    method.to(trainer.strategy.root_device)
    with trainer.precision_plugin.forward_context():
        method.start_labels()
    method.to(before)
    method.begin_seconds = time.perf_counter() - started
    method.begin_cpu_seconds = time.process_time() - cpu_started


def _fixed_labels(dataset: Any, options: Any) -> torch.Tensor | None:
    """Return labels of the recipe's file in the order of the dataset, or None without a file."""
    if getattr(options, "fixed_labels", None) is None:
        return None
    paths = relative_paths(dataset)
    if paths is None:
        raise ValueError(
            "method_kwargs.fixed_labels matches labels to images by path, and this dataset is not "
            "made of files: write it as a folder of images"
        )
    table = read_labels(Path(options.fixed_labels).expanduser())
    labels = match_labels(table, paths, options.num_pseudo_classes, options.fixed_labels)
    classes = int(labels.max(initial=-1)) + 1
    if classes < options.num_pseudo_classes:
        warnings.warn(
            f"{options.fixed_labels} has {classes} classes and the recipe "
            f"{options.num_pseudo_classes}, of which the others stay without images: set "
            f"method_kwargs.num_pseudo_classes={classes}",
            stacklevel=2,
        )
    return torch.from_numpy(labels)


def _label_loader(
    loader: DataLoader[Any], dataset: Any, method: Any, views: str
) -> DataLoader[Any]:
    """Return views of this rank's share of all images for labels, [index, views, annotation]."""
    trainer = method.trainer
    # Pads to equal shares: an image may stand in two, and the label of the higher rank counts.
    share = {"num_replicas": trainer.world_size, "rank": trainer.global_rank}
    share |= {"shuffle": method.plan.batch_statistics, "seed": method.seed}
    sampler: Any
    makes: BatchViews | None = None
    in_workers = False
    if isinstance(loader.dataset, RawImages):
        makes, in_workers = loader.dataset.views, loader.dataset.in_workers
        if views == "center":
            makes = center_views_of(dataset.transform)
    if views == "center":
        dataset = dataset if makes is not None else centered(dataset)
        sampler = DistributedSampler(dataset, **share)
    else:
        sampler = DrawnShare(dataset, lambda: method.label_epoch, **share)
    return view_loader(
        dataset,
        seed=method.seed,
        batch_size=loader.batch_size or 1,
        num_workers=loader.num_workers,
        on_bad_image=method.options.on_bad_image,
        max_bad_images=method.options.max_bad_images,
        sampler=sampler,
        even=True,  # a last batch of one image would have no batch statistics
        views=makes,
        in_workers=in_workers,
    )


def centered(dataset: Any) -> Any:
    """Return a dataset with centered views in place of its augmentation.

    Raises:
        ValueError: if it has no augmentation of its own.
    """
    transform = getattr(dataset, "transform", None)
    if transform is None:
        raise ValueError(
            "labels of centered views need a dataset with an augmentation of its own "
            f"(a `transform`), which {type(dataset).__name__} does not have"
        )
    return with_transform(dataset, center_view(transform))


def _kind(loader: Any) -> str:
    names = [cls.__name__ for cls in type(loader).__mro__]
    if any("dali" in name.lower() for name in names):
        return "DALI"
    return names[0]
