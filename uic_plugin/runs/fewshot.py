"""Few-shot classification with a run's frozen network (UIC, Table 6)."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F
from torchvision import transforms

from uic_plugin.data.center import find_normalize, with_border
from uic_plugin.data.held_out import held_out_images
from uic_plugin.data.loaders import view_loader
from uic_plugin.evaluation.fewshot import EpisodeSettings, check_classes, evaluate_episodes
from uic_plugin.networks.layers import layer_outputs
from uic_plugin.pseudo_labels.storage import allocate
from uic_plugin.runs.run import Run
from uic_plugin.runs.stored import MEAN, stored_features

RESOLUTION = 224
POOLED = "+mp"  # after a layer's name: max-pooled, 3x3 with stride 2, as AlexNet pools


def fewshot_run(
    run: Run,
    data: Path,
    layers: list[str],
    settings: EpisodeSettings,
    *,
    resolution: int | None = None,
    resize: int | None = None,
    stores: Sequence[Path] = (),
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[dict[str, Any]]:
    """Accuracy over episodes on each layer; features are computed once for all of them.

    They lie in files of the system's folder for temporary files while it runs: N images times the
    values of all layers times 4 bytes.

    Args:
        run: whose network.
        data: see `held_out_images`.
        layers: names, see `layer_modules`; with `+mp` after them max-pooled, with `+mean` the mean
            over pixels or tokens. With stores they may be empty.
        settings: of the episodes.
        resolution: side of the center crop in pixels; by default 224, or that of the stores.
        resize: shorter side before it; 256 for 224, in proportion from 128 pixels on, below that
            the resolution itself.
        stores: stored features to use in place of the network, see `stored_features`.
        progress: is told how many images of how many have features.

    Returns:
        A row a layer: layer, dimensions, accuracy and interval in percent.

    Raises:
        ValueError: for an unknown layer, images that no episode can be drawn from, or features of
            another network, folder, layer or size.
        FileNotFoundError: for images that are not there.
    """
    is_given = resolution is not None or resize is not None
    dataset = held_out_images(data, _view(run, resolution, resize))
    classes = np.asarray(dataset.targets)
    check_classes(classes, dataset.classes, settings)
    rows = []
    with tempfile.TemporaryDirectory(prefix="uic-features-") as folder:
        if stores:
            features = _stored(run, stores, dataset, layers, view_is_given=is_given)
        else:
            features = _features(run, dataset, layers, Path(folder), progress)
        for name, values in features.items():
            result = evaluate_episodes(values, classes, settings)
            row = {"layer": name, "dimensions": values.shape[1]}
            rows.append({**row, "accuracy": result.mean, "interval": result.interval})
    return rows


def _view(run: Run, resolution: int | None, resize: int | None) -> transforms.Compose:
    """Return the centered view of an image at a resolution.

    Raises:
        ValueError: for sizes that leave no crop.
    """
    if resolution is None:
        resolution = RESOLUTION
    if resolution < 1:
        raise ValueError(f"--resolution must be at least 1 pixel, got {resolution}")
    if resize is None:
        resize = with_border(resolution) if resolution >= 128 else resolution
    if resize < resolution:
        raise ValueError(f"--resize {resize} leaves no crop of {resolution} pixels: raise it")
    return transforms.Compose(
        [
            transforms.Resize(resize),
            transforms.CenterCrop(resolution),
            transforms.ToTensor(),
            find_normalize(run.augmentation),
        ]
    )


def _stored(
    run: Run, stores: Sequence[Path], dataset: Any, layers: list[str], *, view_is_given: bool
) -> dict[str, torch.Tensor]:
    """Return the stored features under their layer's name."""
    stored = stored_features(run, stores, [dataset], dataset.transform)
    if view_is_given and stored.preprocessing != str(dataset.transform):
        raise ValueError(
            f"{stores[0]} was made with other sizes ({' '.join(stored.preprocessing.split())}): "
            f"leave --resolution and --resize out"
        )
    if layers and layers != [stored.layer]:
        raise ValueError(
            f"{stores[0]} holds features of layer {stored.layer}, not {', '.join(layers)}: leave "
            f"--layers out"
        )
    return {stored.layer: stored.sets[0].features}


@torch.no_grad()
def _features(
    run: Run,
    dataset: Any,
    layers: list[str],
    folder: Path,
    progress: Callable[[int, int], None],
) -> dict[str, torch.Tensor]:
    """Flat outputs of each layer, (N, D) float32 in files."""
    cfg = run.config
    encoder = run.encoder.eval().to(run.device)
    loader = view_loader(
        dataset,
        seed=cfg.seed,
        batch_size=64,
        num_workers=cfg.data.num_workers,
        on_bad_image=cfg.data.on_bad_image,
    )
    below = list(dict.fromkeys(_bare(name) for name in layers))
    features: dict[str, torch.Tensor] = {}
    done = 0
    for images, _ in loader:
        outputs = layer_outputs(encoder, images.to(run.device), below)
        for number, name in enumerate(layers):
            output = outputs[_bare(name)]
            if name.endswith(POOLED):
                if output.ndim != 4 or min(output.shape[2:]) < 3:
                    raise ValueError(
                        f"layer {name!r} puts out {tuple(output.shape[1:])}, which cannot be "
                        f"pooled: raise --resolution, or leave {POOLED} away"
                    )
                output = F.max_pool2d(output, 3, 2)
            if name.endswith(MEAN):
                output = _mean(output)
            flat = output.flatten(1).float().cpu()
            if name not in features:
                size = len(dataset) * flat.shape[1]
                (file,) = allocate((f"{number}",), size, flat.dtype, "mmap", folder=folder)
                features[name] = file.view(len(dataset), -1)
            features[name][done : done + len(flat)] = flat
        done += len(images)
        progress(done, len(dataset))
    return features


def _mean(output: torch.Tensor) -> torch.Tensor:
    """Return the mean (B, D) of a map's pixels or of tokens; leave vectors as they are."""
    if output.ndim == 4:
        return output.mean((2, 3))
    return output.mean(1) if output.ndim == 3 else output


def _bare(name: str) -> str:
    """Return a layer's name without what is done to its output."""
    return name.removesuffix(POOLED).removesuffix(MEAN)
