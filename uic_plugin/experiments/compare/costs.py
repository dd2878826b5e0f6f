"""What an epoch boundary costs, by method and number of images: `uic costs RUN`.

It is the time between two epochs' training: the labels of all images and the order of the next
epoch. The features are those of a trained run's images under its augmentation; a method's pass over
all images, if it needs one, is timed on some of them and extrapolated.
"""

from __future__ import annotations

import importlib.util
import itertools
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from uic_plugin.augmentation import BatchViews
from uic_plugin.data.draws import DrawnShare
from uic_plugin.data.loaders import view_loader
from uic_plugin.data.raw import RawImages
from uic_plugin.hardware import hardware
from uic_plugin.hosts.attach import centered
from uic_plugin.hosts.pipelines import center_views_of
from uic_plugin.networks.heads import PseudoClassHead
from uic_plugin.pseudo_labels import (
    ClassBalancedSampler,
    EmptyClassFixer,
    PseudoLabelBank,
    ShuffledSampler,
)
from uic_plugin.pseudo_labels.kmeans import cluster_features, own_gpu
from uic_plugin.pseudo_labels.sinkhorn import sinkhorn_labels
from uic_plugin.runs.datasets import pretrain_loader
from uic_plugin.runs.run import Run

_Result = TypeVar("_Result")
_EMBEDDING = 128  # dimensions of DeepCluster v2's memory
_TIMED_IMAGES = 2048  # images of a timed pass


def boundary_costs(
    run: Path,
    sizes: Sequence[int],
    classes: int,
    *,
    methods: Sequence[str] | None = None,
    overrides: Sequence[str] = (),
    say: Callable[[str], None] = lambda text: None,
) -> list[dict[str, Any]]:
    """Return the seconds of an epoch boundary for each method and number of images.

    Args:
        run: folder of a finished run; its images, augmentation and network are used.
        sizes: numbers of images N; above the run's own number, further views of them are used.
        classes: K, at most the smallest N.
        methods: names of the methods; by default all that the installed host has.
        overrides: of the run's recipe, for example `data.fraction=-1`.
        say: called with each row as text.

    Returns:
        Rows with `method`, `images`, `classes`, `pass_seconds` (making views of all images and
        forward passes, extrapolated), `label_seconds` and `order_seconds`.

    Raises:
        ValueError: for more classes than images, or an unknown method.
    """
    sizes = sorted(sizes)
    has_solo = importlib.util.find_spec("solo") is not None
    methods = methods or [name for name in _COSTS if has_solo or name != "deepclusterv2"]
    if "deepclusterv2" in methods and not has_solo:
        raise ValueError("deepclusterv2 is timed with solo-learn's code, which is not installed")
    unknown = [name for name in methods if name not in _COSTS]
    if unknown:
        raise ValueError(f"unknown method {unknown[0]!r}: one of {', '.join(_COSTS)}")
    if not sizes or sizes[0] < classes:
        raise ValueError(f"--images must be at least --classes, got {sizes} for {classes}")
    features, view_seconds = _features(run, sizes[-1], overrides)
    rows = []
    for size in sizes:
        for method in methods:
            row: dict[str, Any] = {"method": method, "images": size, "classes": classes}
            has_pass = method in ("deepcluster", "selflabel")
            row["pass_seconds"] = size * view_seconds[method] if has_pass else 0.0
            row.update(_COSTS[method](features[:size], classes))
            row["hardware"] = hardware()
            rows.append({k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()})
            say("  ".join(f"{key} {value}" for key, value in rows[-1].items()))
    return rows


@torch.no_grad()
def _features(
    run: Path, count: int, overrides: Sequence[str]
) -> tuple[torch.Tensor, dict[str, float]]:
    """Return features (count, D) of augmented views, and a label pass's seconds per image."""
    opened = Run.open(run, overrides, needs_images=True)
    cfg, device = opened.config, opened.device
    network = opened.backbone.eval().to(device)
    loader: Any = pretrain_loader(cfg, opened.source)
    dataset = loader.dataset.dataset
    random, center = None, None  # views of an image, or of a batch
    if isinstance(loader.dataset, RawImages):
        random, center = loader.dataset.views, center_views_of(dataset.transform)

    def passed(images: Any, number: int, makes: BatchViews | None, epoch: int = 0) -> torch.Tensor:
        share = DrawnShare(images, lambda: epoch, num_replicas=1, rank=0, shuffle=False)
        batches = view_loader(
            images,
            seed=cfg.seed,
            batch_size=cfg.optimizer.batch_size,
            num_workers=cfg.data.num_workers,
            on_bad_image=cfg.data.on_bad_image,
            sampler=itertools.islice(iter(share), number),
            views=makes,
            in_workers=device.type == "cpu",
        )
        # as in a label pass: decoded images become views on the device
        placed = (batch.to(device) if hasattr(batch, "to") else batch for batch in batches)
        views = (v if isinstance(v, torch.Tensor) else v[0] for _, v, *_ in placed)
        return torch.cat([network(view.to(device)).float().cpu() for view in views])

    timed = min(_TIMED_IMAGES, len(dataset))
    images = dataset if center is not None else centered(dataset)
    seconds = {
        "deepcluster": _timed(lambda: passed(images, timed, center))[0] / timed,
        "selflabel": _timed(lambda: passed(dataset, timed, random))[0] / timed,
    }
    parts: list[torch.Tensor] = []
    while sum(map(len, parts)) < count:
        missing = count - sum(map(len, parts))
        parts.append(passed(dataset, min(missing, len(dataset)), random, epoch=len(parts)))
    return torch.cat(parts), seconds


def _timed(work: Callable[[], _Result]) -> tuple[float, _Result]:
    started = time.perf_counter()
    result = work()
    return time.perf_counter() - started, result


def _ordered(labels: torch.Tensor, classes: int, *, balanced: bool) -> float:
    """Return the seconds to make the order of the next epoch."""
    bank = PseudoLabelBank(len(labels), classes, labels=labels)
    kind = ClassBalancedSampler if balanced else ShuffledSampler
    extra = {"skip_empty": True} if balanced else {}
    return _timed(kind(bank, seed=0, **extra).order)[0]  # type: ignore[arg-type]


def _logits(features: torch.Tensor, classes: int) -> torch.Tensor:
    """Return logits like a trained classifier's: cosines to random images, standardised."""
    with torch.no_grad():
        generator = torch.Generator().manual_seed(0)
        centered = features - features.mean(0)
        chosen = centered[torch.randperm(len(features), generator=generator)[:classes]]
        return nn.functional.normalize(centered, dim=1) @ nn.functional.normalize(chosen, dim=1).T


def _uic(features: torch.Tensor, classes: int) -> dict[str, float]:
    head = PseudoClassHead(features.shape[1], classes)
    bank = PseudoLabelBank(len(features), classes, seed=0)
    fixer = EmptyClassFixer(classes)
    with torch.no_grad():  # not timed: the training step computes these logits anyway
        for rows in torch.arange(len(features)).split(4096):
            bank.update(rows, head(features[rows])[1].argmax(1))
    label_seconds, _ = _timed(lambda: bank.commit(fixer))
    return {
        "label_seconds": label_seconds,
        "order_seconds": _ordered(bank.labels, classes, balanced=True),
    }


def _deepcluster(features: torch.Tensor, classes: int) -> dict[str, float]:
    seconds, labels = _timed(lambda: cluster_features(features.numpy(), classes, gpu=own_gpu()))
    return {
        "label_seconds": seconds,
        "order_seconds": _ordered(torch.from_numpy(labels), classes, balanced=True),
    }


def _selflabel(features: torch.Tensor, classes: int) -> dict[str, float]:
    # cosines times 10 are about as sure as logits of a network in training
    scores = 10 * _logits(features, classes)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a solution that has not converged is timed as well
        seconds, solution = _timed(lambda: sinkhorn_labels(scores))
    return {
        "label_seconds": seconds,
        "order_seconds": _ordered(solution.labels, classes, balanced=False),
        "iterations": solution.iterations,
    }


def _deepclusterv2(features: torch.Tensor, classes: int) -> dict[str, float]:
    from uic_plugin.hosts.solo_kmeans import cluster_memory

    wide = nn.functional.pad(features, (0, max(0, _EMBEDDING - features.shape[1])))
    stored = nn.functional.normalize(wide[:, :_EMBEDDING], dim=1)
    seconds, _ = _timed(lambda: cluster_memory(torch.stack([stored, stored]), classes))
    labels = torch.zeros(len(features), dtype=torch.int64)
    return {
        "label_seconds": seconds,
        "order_seconds": _ordered(labels, classes, balanced=False),
    }


_COSTS: dict[str, Callable[[torch.Tensor, int], dict[str, float]]] = {
    "uic": _uic,
    "deepcluster": _deepcluster,
    "selflabel": _selflabel,
    "deepclusterv2": _deepclusterv2,
}
