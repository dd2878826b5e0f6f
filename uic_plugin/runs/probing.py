"""Linear probes of a run's frozen network, on its own images or others."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from PIL import Image, UnidentifiedImageError
from torchvision import transforms

from uic_plugin.data.centre import find_normalize, with_border
from uic_plugin.data.resolve import DataSource
from uic_plugin.ranks import process_group, rank_and_world
from uic_plugin.evaluation.probe_settings import ProbeResult, ProbeSettings
from uic_plugin.evaluation.probes import ProbeTrainer
from uic_plugin.hosts import backbone_of, load_host
from uic_plugin.runs.datasets import annotated_datasets
from uic_plugin.networks.layers import FEATURES, MLP, Encoder, layer_modules
from uic_plugin.report.tables import write_csv

RESULTS_FILE, HISTORY_FILE = "probe.csv", "probe_epochs.csv"


def encoder_of(method: Any) -> Encoder:
    """A method's backbone, with the MLP of its head where it has one."""
    head = getattr(method, "head", None)
    mlp = getattr(head, "mlp", None)
    return Encoder(backbone_of(method), mlp if mlp is not None and len(mlp) else None)


def default_layers(method: Any) -> list[str]:
    """The convolutional layers; where the network has none, its features. And the MLP, if any."""
    names = list(layer_modules(encoder_of(method)))
    chosen = [name for name in names if name.startswith(("conv", "layer"))] or [FEATURES]
    return chosen + [name for name in names if name == MLP]


def probe_run(
    method: Any,
    cfg: DictConfig,
    source: DataSource,
    layers: list[str],
    settings: ProbeSettings,
    out_dir: Path,
    *,
    image_size: int | None = None,
    resize: int | None = None,
    enlarge: bool = False,
    say: Callable[[str], None] = print,
) -> list[ProbeResult]:
    """Train and test probes; writes `probe.csv` and `probe_epochs.csv`, and goes on if stopped.

    Args:
        method: whose network to probe.
        cfg: its prepared recipe.
        source: where the annotated images are.
        layers: names, see `layer_modules`.
        settings: of the training.
        out_dir: folder for results and checkpoint.
        image_size: side of the crops in pixels; the recipe's unless told.
        resize: shorter side that images are brought to first; 256 / 224 of the crop unless told.
        enlarge: whether images smaller than the crop may be enlarged to it.
        say: takes a line per epoch.

    Returns:
        The results on the first process, for every layer, of the last and the best epoch.

    Raises:
        ValueError: for a layer that the network has not, or images smaller than the crop.
    """
    size = cfg.augmentations[0].crop_size if image_size is None else image_size
    if size < 1:
        raise ValueError(f"--image-size must be at least 1 pixel, got {size}")
    shorter = with_border(size) if resize is None else resize
    if shorter < size:
        raise ValueError(f"--resize {shorter} leaves no crop of {size} pixels: raise it")
    augmentation = load_host().augmentation(source.transforms, cfg.augmentations)
    tail = [transforms.ToTensor(), find_normalize(augmentation)]
    to_size = transforms.Resize(shorter)
    random_crop = transforms.Compose(
        [to_size, transforms.RandomCrop(size), transforms.RandomHorizontalFlip(), *tail]
    )
    centre = transforms.Compose([to_size, transforms.CenterCrop(size), *tail])
    ten = transforms.Compose([to_size, *tail, transforms.TenCrop(size), torch.stack])
    first = centre if settings.store_features else random_crop
    train, test = annotated_datasets(cfg, source, first, centre)
    ten_crops = copy.copy(test)
    ten_crops.transform = ten
    if not enlarge:
        for dataset in (train, test):
            _check_size(dataset, size)
    with process_group(use_gpu=cfg.accelerator != "cpu") as device:
        trainer = ProbeTrainer(
            encoder_of(method),
            layers,
            train,
            test,
            num_classes=source.num_classes,
            image_size=size,
            settings=settings,
            device=device,
            num_workers=cfg.data.num_workers,
        )

        def on_epoch(row: dict[str, Any]) -> None:
            write_csv(out_dir / HISTORY_FILE, trainer.history)
            tops = "  ".join(f"{name} {row[f'{name}_top1']:.2f}" for name in layers)
            say(f"probe epoch {row['epoch']}/{settings.epochs}  top-1 of one crop: {tops}")

        results = trainer.run(out_dir, ten_crops, on_epoch)
        if rank_and_world()[0] == 0:
            out_dir.mkdir(parents=True, exist_ok=True)
            write_csv(out_dir / RESULTS_FILE, [vars(result) for result in results])
            return results
    return []


def _check_size(dataset: Any, size: int, looked_at: int = 64) -> None:
    """Refuse images smaller than the crop; looks at some, evenly spread."""
    samples = getattr(dataset, "samples", None) or []
    for path, _ in samples[:: max(1, len(samples) // looked_at)]:
        try:
            with Image.open(path) as image:
                width, height = image.size
        except (OSError, UnidentifiedImageError):
            continue  # named, or skipped, when it is read
        if min(width, height) < size:
            raise ValueError(
                f"{path} has {width}x{height} pixels, less than the crop of {size}: "
                f"--resize {with_border(size)} enlarges such images, --image-size takes a "
                f"smaller crop"
            )
