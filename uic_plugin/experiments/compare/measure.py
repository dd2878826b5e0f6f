"""Measure all figures of a finished run: `uic measure RUN`."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from uic_plugin.experiments.compare.own_classes import (
    kmeans_figures,
    own_class_figures,
    own_logits,
)
from uic_plugin.experiments.compare.plan import MEASURES_FILE
from uic_plugin.files import replacing
from uic_plugin.hosts.checkpoint_files import read_checkpoint
from uic_plugin.pseudo_labels.kmeans import check_faiss
from uic_plugin.report.tables import read_csv
from uic_plugin.runs.datasets import eval_loaders
from uic_plugin.runs.evaluation import Features, knn_accuracy, linear_accuracy
from uic_plugin.runs.folder import COST_FILE, HISTORY_FILE, SNAPSHOTS
from uic_plugin.runs.run import Run

# a head that was never trained, that annotations trained, or whose classes are no groups of images
_WITHOUT_CLASSES = ("random", "supervised", "rotnet", "instdisc")
_BLOCK = 4096  # images whose logits are held at once
_KEPT_BYTES = 2 << 30  # maximum size of prepared images that are kept for all snapshots


def measure_run(
    run: Path, *, clusters: int, overrides: tuple[str, ...] = (), knn_only: bool = False
) -> dict[str, Any]:
    """Evaluate a run and write `measures.json` in its folder.

    Args:
        run: folder of a finished run on annotated images.
        clusters: number of k-means clusters of the training images' features, for NMI and purity.
        overrides: of the run's recipe, for example `linear.max_epochs=50`.
        knn_only: leave out all figures but `knn` and what the run cost.

    Returns:
        The content of the file: `knn` and `linear` (top-1 in percent, host's evaluators; linear
        needs at least five classes), `nmi` and `purity` of the method's own labels as they stood at
        the end of training, the figures of `own_class_figures` and `kmeans_figures` on centered
        views of the training images, seconds, images per second, memory in bytes, and `curve`:
        rows with `epoch`, `views`, `seconds`, `cpu_seconds` and `knn`. With `data.held_out`
        accuracies are on the held-out training images.

    Raises:
        FileNotFoundError: if there is no such run.
        ValueError: without annotated training and test images.
    """
    check_faiss()
    opened = Run.open(run, overrides, needs_images=True)
    cfg, folder = opened.config, opened.folder
    images = _Images(opened)
    network = opened.backbone
    features = images.features(network)
    knn = {"k": cfg.knn.k, "temperature": cfg.knn.temperature, "distance": cfg.knn.distance}
    measures: dict[str, Any] = {
        "method": cfg.method,
        "seed": cfg.seed,
        **_costs(folder, cfg.method),
        "knn": knn_accuracy(features, **knn),
    }
    if not knn_only:
        annotated, trained = features.train_targets.numpy(), features.train.numpy()
        own = _own_labels(opened, features.train)
        # the host's evaluation reports top-5
        is_linear = opened.source.num_classes >= 5
        measures["linear"] = linear_accuracy(opened, features) if is_linear else None
        measures.update(own_class_figures(own, trained, annotated, cfg.seed))
        measures.update(kmeans_figures(trained, annotated, clusters, cfg.seed))
        measures["curve"] = _curve(folder, measures, images, network, knn)
    with replacing(folder / MEASURES_FILE) as part:
        part.write_text(json.dumps(measures, indent=1) + "\n")
    return measures


@torch.no_grad()
def _own_labels(run: Run, features: torch.Tensor) -> list[tuple[np.ndarray, int]]:
    """Return each head's own classes (N,) of images with these features, and their number."""
    if run.config.method in _WITHOUT_CLASSES:
        return []
    method = run.load().to(run.device)
    blocks = [own_logits(method, part.to(run.device)) for part in features.split(_BLOCK)]
    return [
        (torch.cat([part.argmax(1).cpu() for part in head]).numpy(), head[0].shape[1])
        for head in zip(*blocks, strict=True)
    ]


def _curve(
    folder: Path, measures: dict[str, Any], images: _Images, network: nn.Module, knn: dict[str, Any]
) -> list[dict[str, Any]]:
    """Return the k-NN accuracy of each snapshot; leaves the network with the last one's weights."""
    curve = _times(folder, measures)
    for row in curve:
        if row["epoch"] == measures["epochs"]:  # measured already
            row["knn"] = measures["knn"]
            continue
        path = folder / SNAPSHOTS / f"epoch{row['epoch']:04d}.ckpt"
        network.load_state_dict(
            {
                name.removeprefix("backbone."): value
                for name, value in read_checkpoint(path)["state_dict"].items()
            }
        )
        row["knn"] = knn_accuracy(images.features(network), **knn)
    return curve


class _Images:
    """Annotated images in the host's centered views; kept in memory if they are few."""

    def __init__(self, run: Run) -> None:
        self.device = run.device
        size = run.config.augmentations[0].crop_size
        self.loaders: list[Iterable[Any]] = []
        for loader in eval_loaders(run.config, run.source):
            is_small = len(loader.dataset) * 3 * size**2 * 4 < _KEPT_BYTES / 2  # type: ignore[arg-type]
            self.loaders.append(list(loader) if is_small else loader)

    @torch.no_grad()
    def features(self, network: nn.Module) -> Features:
        network = network.eval().to(self.device)
        parts: list[torch.Tensor] = []
        for loader in self.loaders:
            rows = [(network(x.to(self.device)).float().cpu(), y) for x, y in loader]
            parts += [torch.cat([x for x, _ in rows]), torch.cat([y for _, y in rows])]
        return Features(*parts)


def _costs(run: Path, method: str) -> dict[str, Any]:
    """Return time and memory of training, and the last figures of the method's own labels.

    Only runs of `uic pretrain` have these files, not those of the host's own scripts.
    """
    cost_file, history_file = run / COST_FILE, run / HISTORY_FILE
    cost = json.loads(cost_file.read_text()) if cost_file.exists() else {}
    rows = read_csv(history_file) if history_file.exists() else []
    seconds = [float(row["seconds"]) for row in rows] if method != "random" else []
    boundaries = [float(row["turn_seconds"]) for row in rows if row.get("turn_seconds")]
    per_epoch = statistics.median(seconds) if seconds else 0.0
    last = rows[-1] if rows else {}
    costs = {
        **cost,
        "epochs": len(seconds),
        "seconds": sum(seconds) + cost.get("settle_seconds", 0),
        "cpu_seconds": sum(float(row.get("cpu_seconds") or 0) for row in rows)
        + cost.get("settle_cpu_seconds", 0),
        "seconds_per_epoch": per_epoch,
        "turn_seconds": statistics.median(boundaries) if boundaries else None,
        "nmi": float(last["uic_nmi"]) if last.get("uic_nmi") else None,
        "purity": float(last["uic_purity"]) if last.get("uic_purity") else None,
    }
    if cost:
        images = [images_of_epoch(row, cost) for row in rows[: len(seconds)]]
        views = [count * cost["views_per_image"] for count in images]
        costs["views"] = sum(views)
        costs["steps"] = sum(images) // cost["batch_size"]
        costs["views_per_second"] = statistics.median(views) / per_epoch if per_epoch else None
    return costs


def images_of_epoch(row: Mapping[str, str], cost: Mapping[str, Any]) -> int:
    """Return how many images an epoch drew, of all ranks together.

    Args:
        row: of `epochs.csv`.
        cost: content of `cost.json`, for runs whose history does not say the steps of an epoch.
    """
    if row.get("steps"):
        return int(row["steps"]) * int(cost["batch_size"])
    return int(cost["images_per_epoch"])


def _times(run: Path, measures: dict[str, Any]) -> list[dict[str, Any]]:
    """Return epoch, views and seconds of each snapshot."""
    if not measures["epochs"] or "views" not in measures:
        return []
    rows = read_csv(run / HISTORY_FILE)
    clocks = {
        name: [0.0, *(float(row.get(name) or 0) for row in rows)]
        for name in ("seconds", "cpu_seconds")
    }
    views = [images_of_epoch(row, measures) * measures["views_per_image"] for row in rows]
    return [
        {
            "epoch": epoch,
            "views": sum(views[:epoch]),
            **{name: sum(clock[: epoch + 1]) for name, clock in clocks.items()},
        }
        for epoch in _snapshot_epochs(run)
    ]


def _snapshot_epochs(run: Path) -> Iterator[int]:
    for path in sorted((run / SNAPSHOTS).glob("epoch*.ckpt")):
        yield int(path.stem.removeprefix("epoch"))
