"""Linear probes of a run's frozen network, on its own images or others."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image, UnidentifiedImageError
from torchvision import transforms

from uic_plugin.data.center import find_normalize, with_border
from uic_plugin.data.images import path_of
from uic_plugin.data.packed import PackedImages
from uic_plugin.evaluation.probe_settings import ProbeResult, ProbeSettings
from uic_plugin.evaluation.probes import ProbeTrainer
from uic_plugin.networks.layers import FEATURES, MLP, layer_modules
from uic_plugin.ranks import process_group, rank_and_world
from uic_plugin.report.tables import write_csv
from uic_plugin.runs.datasets import annotated_datasets
from uic_plugin.runs.run import Run
from uic_plugin.runs.stored import StoredSets, stored_features

RESULTS_FILE, HISTORY_FILE = "probe.csv", "probe_epochs.csv"


def default_layers(run: Run) -> list[str]:
    """Return the convolutional layers, else the features; and the MLP, if any."""
    names = list(layer_modules(run.encoder))
    chosen = [name for name in names if name.startswith(("conv", "layer"))] or [FEATURES]
    return chosen + [name for name in names if name == MLP]


def probe_run(
    run: Run,
    layers: list[str],
    settings: ProbeSettings,
    out_dir: Path,
    *,
    image_size: int | None = None,
    resize: int | None = None,
    enlarge: bool = False,
    stores: Sequence[Path] = (),
    say: Callable[[str], None] = print,
) -> list[ProbeResult]:
    """Train and test probes; writes `probe.csv` and `probe_epochs.csv`, and resumes if stopped.

    Args:
        run: whose network to probe, on its annotated images.
        layers: names, see `layer_modules`. With stores they may be empty.
        settings: of the training.
        out_dir: folder for results and checkpoint.
        image_size: side of the crops in pixels; the recipe's by default.
        resize: shorter side that images are brought to first; 256 / 224 of the crop by default.
        enlarge: whether images smaller than the crop may be enlarged to it.
        stores: stored features to train and test on, one view of each image, in place of the
            network; see `stored_features`.
        say: takes a line per epoch.

    Returns:
        The results on the first process, for every layer, of the last and the best epoch.

    Raises:
        ValueError: for a layer that the network does not have, images smaller than the crop, or
            features of another network, folder, layer or size.
    """
    if stores:
        settings = dataclasses.replace(settings, store_features=True, crops=1)
    size = run.config.augmentations[0].crop_size if image_size is None else image_size
    train, test, ten_crops = _probed_images(run, size, resize, settings)
    stored = _stored(run, stores, (train, test), layers) if stores else None
    if stored is not None:
        layers = [stored.layer]
    elif not enlarge:
        for dataset in (train, test):
            _check_size(dataset, size)
    with process_group(use_gpu=run.config.accelerator != "cpu") as device:
        trainer = ProbeTrainer(
            run.encoder,
            layers,
            train,
            test,
            num_classes=run.source.num_classes,
            image_size=size,
            settings=settings,
            device=device,
            num_workers=run.config.data.num_workers,
            stored=None if stored is None else [(s.features, s.classes) for s in stored.sets],
        )
        return _trained(trainer, ten_crops, out_dir, say)


def _trained(
    trainer: ProbeTrainer, ten_crops: Any, out_dir: Path, say: Callable[[str], None]
) -> list[ProbeResult]:
    """Train and test probes and write their files; return the results on the first process."""

    def on_epoch(row: dict[str, Any]) -> None:
        write_csv(out_dir / HISTORY_FILE, trainer.history)
        tops = "  ".join(f"{name} {row[f'{name}_top1']:.2f}" for name in trainer.layers)
        say(f"probe epoch {row['epoch']}/{trainer.settings.epochs}  top-1 of one crop: {tops}")

    results = trainer.run(out_dir, ten_crops, on_epoch)
    if rank_and_world()[0]:
        return []
    out_dir.mkdir(parents=True, exist_ok=True)
    write_csv(out_dir / RESULTS_FILE, [vars(result) for result in results])
    return results


def _stored(
    run: Run, stores: Sequence[Path], images: Sequence[Any], layers: list[str]
) -> StoredSets:
    """Return the stored features of training and test images."""
    stored = stored_features(run, stores, images, images[-1].transform)
    if layers and layers != [stored.layer]:
        raise ValueError(
            f"{stores[0]} holds features of layer {stored.layer}, not {', '.join(layers)}: leave "
            f"--layers out"
        )
    return stored


def _probed_images(
    run: Run, size: int, resize: int | None, settings: ProbeSettings
) -> tuple[Any, Any, Any]:
    """Return training images, test images, and these in ten crops.

    Raises:
        ValueError: for sizes that leave no crop.
    """
    if size < 1:
        raise ValueError(f"--image-size must be at least 1 pixel, got {size}")
    shorter = with_border(size) if resize is None else resize
    if shorter < size:
        raise ValueError(f"--resize {shorter} leaves no crop of {size} pixels: raise it")
    tail = [transforms.ToTensor(), find_normalize(run.augmentation)]
    to_size = transforms.Resize(shorter)
    random_crop = transforms.Compose(
        [to_size, transforms.RandomCrop(size), transforms.RandomHorizontalFlip(), *tail]
    )
    center = transforms.Compose([to_size, transforms.CenterCrop(size), *tail])
    first = center if settings.store_features else random_crop
    train, test = annotated_datasets(run.config, run.source, first, center)
    ten_crops = copy.copy(test)
    ten_crops.transform = transforms.Compose(
        [to_size, *tail, transforms.TenCrop(size), torch.stack]
    )
    return train, test, ten_crops


def _check_size(dataset: Any, size: int, looked_at: int = 64) -> None:
    """Refuse images smaller than the crop; looks at some, evenly spread."""
    for path, width, height in _some_sizes(dataset, looked_at):
        if min(width, height) < size:
            raise ValueError(
                f"{path} has {width}x{height} pixels, less than the crop of {size}: "
                f"--resize {with_border(size)} enlarges such images, --image-size takes a "
                f"smaller crop"
            )


def _some_sizes(dataset: Any, looked_at: int) -> Iterator[tuple[str, int, int]]:
    """Iterate over path, width and height of some readable images, evenly spread."""
    for number in range(0, len(dataset), max(1, len(dataset) // looked_at)):
        if isinstance(dataset, PackedImages):
            height, width = dataset.store.sizes[dataset.row(number)].tolist()
            if height:
                yield path_of(dataset, number), width, height
        elif getattr(dataset, "samples", None):
            path = dataset.samples[number][0]
            try:
                with Image.open(path) as image:
                    width, height = image.size
            except (OSError, UnidentifiedImageError):
                continue  # named, or skipped, when it is read
            yield path, width, height
