"""`uic demo`: UIC on handwritten digits, compared with SimCLR and an untrained network.

All have the same network, number of image views and evaluators.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig
from PIL import Image
from rich.console import Console
from rich.table import Table

from uic_plugin.runs.run import Run

COLUMNS = ("method", "k-NN", "linear", "NMI", "purity", "seconds")
RECIPE = "digits/demo"
SIMCLR_EPOCHS = 10  # of two views, as RECIPE


@dataclass(frozen=True)
class _Measured:
    """A trained network on its training images.

    Attributes:
        row: of the table.
        cfg: its recipe.
        features: (N, D).
        probabilities: (N, K) of the first classifier of UIC's head; None for the other methods.
    """

    row: dict[str, Any]
    cfg: DictConfig
    features: np.ndarray
    probabilities: np.ndarray | None


def run_demo(
    out_dir: Path, *, seed: int = 0, console: Console, overrides: tuple[str, ...] = ()
) -> list[dict[str, Any]]:
    """Train, evaluate, and write a table and pictures.

    Args:
        out_dir: folder for runs and results; a second call resumes a stopped one.
        seed: of all three networks.
        console: for the progress and the table.
        overrides: Hydra overrides for both recipes.

    Returns:
        The rows of the table, as `results.csv` has them: accuracies in percent, NMI and purity in
        [0, 1], seconds of wall time for training and evaluation.
    """
    from uic_plugin.recipes_path import compose_recipe, path_override
    from uic_plugin.report.tables import write_csv

    if out_dir.is_dir() and any(out_dir.iterdir()) and not any(out_dir.glob("uic-seed*")):
        raise FileExistsError(f"{out_dir} holds something else than a demo: give a folder, --out")
    out_dir.mkdir(parents=True, exist_ok=True)
    num_classes = compose_recipe(RECIPE, [*overrides]).method_kwargs.num_pseudo_classes
    measured = {}
    for name in ("random", "uic", "simclr"):
        run_dir = out_dir / f"{name}-seed{seed}"
        settings = [f"seed={seed}", path_override("run_dir", run_dir), *overrides]
        if name == "simclr":
            cfg = compose_recipe("digits/simclr", [f"max_epochs={SIMCLR_EPOCHS}", *settings])
        else:
            cfg = compose_recipe(RECIPE, settings)
        measured[name] = _train_and_measure(name, cfg, run_dir, num_classes, console)
    rows = [trained.row for trained in measured.values()]
    write_csv(out_dir / "results.csv", rows)
    _plot(measured["uic"], out_dir, out_dir / f"uic-seed{seed}", num_classes)
    console.print(results_table(rows))
    console.print(
        "k-NN and linear: top-1 in percent on held-out images, the host's evaluators. NMI and "
        "purity against the\nannotations: UIC's own classes; for the others k-means on their "
        "features, with as many clusters."
    )
    console.print(f"Table, curves and a picture of every class: {out_dir.resolve()}")
    page = _page(measured["uic"], out_dir)
    console.print(f"Look at the classes in a browser: {page.resolve()}")
    return rows


def _train_and_measure(
    name: str, cfg: DictConfig, run_dir: Path, num_classes: int, console: Console
) -> _Measured:
    """Train one of the networks, or leave it untrained, and evaluate it."""
    from uic_plugin.discovery.baselines import kmeans_labels
    from uic_plugin.pseudo_labels import nmi, purity
    from uic_plugin.report.figures import read_history
    from uic_plugin.report.progress import EpochReporter
    from uic_plugin.runs.evaluation import (
        extract_features,
        knn_accuracy,
        linear_accuracy,
    )
    from uic_plugin.runs.folder import CHECKPOINT_FILE, HISTORY_FILE
    from uic_plugin.runs.training import pretrain

    checkpoint = None
    if name != "random":
        pretrain(cfg, reporter=EpochReporter(name, console))
        checkpoint = run_dir / CHECKPOINT_FILE
    started = time.perf_counter()
    run = Run.of_recipe(cfg, run_dir, checkpoint)
    cfg = run.config
    features = extract_features(run)
    row: dict[str, Any] = {"method": name}
    row["k-NN"] = knn_accuracy(features, **cfg.knn)
    row["linear"] = linear_accuracy(run, features)
    annotations, vectors = features.train_targets.numpy(), features.train.numpy()
    probabilities = first_probabilities(run, features.train) if name == "uic" else None
    if probabilities is not None:
        classes = probabilities.argmax(1)
    else:
        classes = kmeans_labels(vectors, num_classes, cfg.seed, starts=3)
    row["NMI"], row["purity"] = nmi(annotations, classes), purity(annotations, classes)
    row["seconds"] = time.perf_counter() - started
    if name != "random":  # of all calls that trained it
        row["seconds"] += sum(read_history(run_dir / HISTORY_FILE)["seconds"])
    return _Measured(row, cfg, vectors, probabilities)


def _plot(uic: _Measured, out_dir: Path, run_dir: Path, num_classes: int) -> None:
    """Plot UIC's curves and the most confident images of its classes."""
    from uic_plugin.report.figures import plot_classes, plot_curves, read_history
    from uic_plugin.runs.folder import HISTORY_FILE

    plot_curves({"uic": read_history(run_dir / HISTORY_FILE)}, out_dir / "curves.png")
    scores = _scores(uic)
    labels = scores.argmax(1)
    sizes = np.bincount(labels, minlength=num_classes)
    images = _images(uic.cfg)
    plot_classes(images, labels, scores.max(1), out_dir / "classes.png", sizes=sizes)


def _scores(uic: _Measured) -> np.ndarray:
    if uic.probabilities is None:
        raise ValueError(f"{uic.row['method']} has no classes of its own")
    return uic.probabilities


@torch.no_grad()
def first_probabilities(run: Run, features: torch.Tensor) -> np.ndarray:
    """Return probabilities (N, K) of features (N, D) by the first classifier of a run's head."""
    probabilities: np.ndarray = run.first_logits().eval()(features).softmax(1).numpy()
    return probabilities


def _page(uic: _Measured, out_dir: Path) -> Path:
    """Write `labels.csv` and the page of the classes."""
    from torchvision.datasets import ImageFolder

    from uic_plugin.data.labels import labels_of_probabilities, write_labels
    from uic_plugin.report.page import PageOptions, write_class_page

    root = Path(uic.cfg.data.train_path)
    paths = [Path(p).relative_to(root).as_posix() for p, _ in ImageFolder(root).samples]
    table = labels_of_probabilities(paths, _scores(uic))
    source = out_dir / "labels.csv"
    write_labels(source, table)
    options = PageOptions(title="Classes of handwritten digits", map="tsne")
    return write_class_page(
        table, source, root, out_dir / "classes", features=uic.features, options=options
    )


def results_table(rows: list[dict[str, Any]]) -> Table:
    """Return the rows of a demo as a table for the terminal."""
    table = Table(*COLUMNS)
    for row in rows:
        table.add_row(
            row["method"],
            f"{row['k-NN']:.1f}",
            f"{row['linear']:.1f}",
            f"{row['NMI']:.3f}",
            f"{row['purity']:.3f}",
            f"{row['seconds']:.0f}",
        )
    return table


def _images(cfg: DictConfig) -> list[np.ndarray]:
    """Read the training images from the disk, in the order of their index."""
    from torchvision.datasets import ImageFolder

    paths = [path for path, _ in ImageFolder(cfg.data.train_path).samples]
    images = []
    for path in paths:
        with Image.open(path) as image:
            images.append(np.asarray(image.convert("RGB")))
    return images
