"""Measure all figures of a finished run: `uic measure RUN`."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from uic_plugin.files import replacing
from uic_plugin.hosts.checkpoint_files import read_checkpoint
from uic_plugin.pseudo_labels import nmi, purity
from uic_plugin.pseudo_labels.kmeans import check_faiss, cluster_features, own_gpu
from uic_plugin.report.tables import read_csv
from uic_plugin.runs.datasets import eval_loaders
from uic_plugin.runs.evaluation import Features, knn_accuracy, linear_accuracy
from uic_plugin.runs.folder import COST_FILE, HISTORY_FILE, SNAPSHOTS
from uic_plugin.runs.run import Run

MEASURES_FILE = "measures.json"
_KEPT_BYTES = 2 << 30  # maximum size of prepared images that are kept for all snapshots


def measure_run(run: Path, *, clusters: int, overrides: tuple[str, ...] = ()) -> dict[str, Any]:
    """Evaluate a run and write `measures.json` in its folder.

    Args:
        run: folder of a finished run on annotated images.
        clusters: number of k-means clusters of the training images' features, for NMI and purity.
        overrides: of the run's recipe, for example `linear.max_epochs=50`.

    Returns:
        The content of the file: `knn` and `linear` (top-1 in percent, host's evaluators; linear
        needs at least five classes), `nmi` and `purity` of the method's own labels if it has any,
        `kmeans_nmi` and `kmeans_purity`, seconds, images per second, memory in bytes, and `curve`:
        rows with `epoch`, `views`, `seconds` and `knn`.

    Raises:
        FileNotFoundError: if there is no such run.
        ValueError: without annotated training and test images.
    """
    check_faiss()
    opened = Run.open(run, overrides, needs_images=True)
    cfg, folder = opened.config, opened.folder
    costs = _costs(folder, cfg.method)
    images = _Images(opened)
    network = opened.backbone
    features = images.features(network)
    knn = {"k": cfg.knn.k, "temperature": cfg.knn.temperature, "distance": cfg.knn.distance}
    annotated = features.train_targets.numpy()
    labels = cluster_features(features.train.numpy(), clusters, seed=cfg.seed, gpu=own_gpu())
    measures: dict[str, Any] = {
        "method": cfg.method,
        "seed": cfg.seed,
        **costs,
        "knn": knn_accuracy(features, **knn),
        # the host's evaluation reports top-5
        "linear": (linear_accuracy(opened, features) if opened.source.num_classes >= 5 else None),
        "kmeans_clusters": clusters,
        "kmeans_nmi": nmi(annotated, labels),
        "kmeans_purity": purity(annotated, labels),
    }
    curve = _times(folder, measures)
    for row in curve:
        path = folder / SNAPSHOTS / f"epoch{row['epoch']:04d}.ckpt"
        network.load_state_dict(
            {
                name.removeprefix("backbone."): value
                for name, value in read_checkpoint(path)["state_dict"].items()
            }
        )
        row["knn"] = knn_accuracy(images.features(network), **knn)
    measures["curve"] = curve
    with replacing(folder / MEASURES_FILE) as part:
        part.write_text(json.dumps(measures, indent=1) + "\n")
    return measures


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
        "seconds": sum(seconds),
        "seconds_per_epoch": per_epoch,
        "turn_seconds": statistics.median(boundaries) if boundaries else None,
        "nmi": float(last["uic_nmi"]) if last.get("uic_nmi") else None,
        "purity": float(last["uic_purity"]) if last.get("uic_purity") else None,
    }
    if cost:
        views = cost["images_per_epoch"] * cost["views_per_image"]
        costs["views"] = views * len(seconds)
        costs["steps"] = cost["images_per_epoch"] // cost["batch_size"] * len(seconds)
        costs["views_per_second"] = views / per_epoch if per_epoch else None
    return costs


def _times(run: Path, measures: dict[str, Any]) -> list[dict[str, Any]]:
    """Return epoch, views and seconds of each snapshot."""
    if not measures["epochs"] or "views" not in measures:
        return []
    rows = read_csv(run / HISTORY_FILE)
    seconds = [0.0, *(float(row["seconds"]) for row in rows)]
    per_epoch = measures["images_per_epoch"] * measures["views_per_image"]
    return [
        {"epoch": epoch, "views": epoch * per_epoch, "seconds": sum(seconds[: epoch + 1])}
        for epoch in _snapshot_epochs(run)
    ]


def _snapshot_epochs(run: Path) -> Iterator[int]:
    for path in sorted((run / SNAPSHOTS).glob("epoch*.ckpt")):
        yield int(path.stem.removeprefix("epoch"))
