"""`uic demo`: UIC on handwritten digits, beside SimCLR and an untrained network.

Same network, same number of image views, same evaluators.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig
from PIL import Image
from rich.console import Console
from rich.table import Table

from uic_plugin.networks.heads import PseudoClassHead

COLUMNS = ("method", "k-NN", "linear", "NMI", "purity", "seconds")


def run_demo(
    out_dir: Path, *, seed: int = 0, console: Console, overrides: tuple[str, ...] = ()
) -> list[dict[str, Any]]:
    """Train, evaluate, and write a table and pictures.

    Args:
        out_dir: folder for runs and results; a second call resumes where a first one stopped.
        seed: of all three networks.
        console: where the progress and the table go.
        overrides: Hydra overrides for both recipes.

    Returns:
        The rows of the table, as `results.csv` has them: accuracies in percent, NMI and purity in
        [0, 1], seconds of wall time for training and evaluation.
    """
    from uic_plugin.pseudo_labels import nmi, purity
    from uic_plugin.recipes_path import compose_recipe
    from uic_plugin.report.figures import plot_classes, plot_curves, read_history
    from uic_plugin.report.progress import EpochReporter
    from uic_plugin.report.tables import write_csv
    from uic_plugin.runs.evaluation import (
        extract_features,
        knn_accuracy,
        linear_accuracy,
    )
    from uic_plugin.runs.folder import CHECKPOINT_FILE, HISTORY_FILE
    from uic_plugin.runs.run import Run
    from uic_plugin.runs.training import pretrain

    out_dir.mkdir(parents=True, exist_ok=True)
    rows = []
    num_classes = compose_recipe("digits/uic", [*overrides]).method_kwargs.num_pseudo_classes
    for method_name in ("random", "uic", "simclr"):
        recipe = "digits/simclr" if method_name == "simclr" else "digits/uic"
        run_dir = out_dir / f"{method_name}-seed{seed}"
        cfg = compose_recipe(recipe, [f"seed={seed}", f"run_dir={run_dir}", *overrides])
        checkpoint = None
        if method_name != "random":
            pretrain(cfg, reporter=EpochReporter(method_name, console))
            checkpoint = run_dir / CHECKPOINT_FILE
        started = time.perf_counter()
        run = Run.of_recipe(cfg, run_dir, checkpoint)
        cfg = run.config
        features = extract_features(run)
        row: dict[str, Any] = {"method": method_name}
        row["k-NN"] = knn_accuracy(features, **cfg.knn)
        row["linear"] = linear_accuracy(run, features)
        annotations = features.train_targets.numpy()
        if method_name == "uic":
            uic_cfg = cfg
            probabilities = assign(run.head, features.train)
            labels, confidence = probabilities.argmax(1), probabilities.max(1)
            classes, uic_features = labels, features.train.numpy()
        else:
            classes = _k_means(features.train, num_classes, seed)
        row["NMI"], row["purity"] = nmi(annotations, classes), purity(annotations, classes)
        row["seconds"] = time.perf_counter() - started
        if method_name != "random":  # of all calls that trained it
            row["seconds"] += sum(read_history(run_dir / HISTORY_FILE)["seconds"])
        rows.append(row)

    write_csv(out_dir / "results.csv", rows)
    history = read_history(out_dir / f"uic-seed{seed}" / HISTORY_FILE)
    plot_curves({"uic": history}, out_dir / "curves.png")
    plot_classes(
        _images(uic_cfg),
        labels,
        confidence,
        out_dir / "classes.png",
        sizes=np.bincount(labels, minlength=num_classes),
    )
    console.print(results_table(rows))
    console.print(
        "k-NN and linear: top-1 in percent on held-out images, the host's evaluators. NMI and "
        "purity against the\nannotations: UIC's own classes; for the others k-means on their "
        "features, with as many clusters."
    )
    console.print(f"Table, curves and a picture of every class: {out_dir.resolve()}")
    page = _page(uic_cfg, probabilities, uic_features, out_dir)
    console.print(f"Look at the classes in a browser: {page.resolve()}")
    return rows


@torch.no_grad()
def assign(head: PseudoClassHead, features: torch.Tensor) -> np.ndarray:
    """Return softmax scores (N, K) of features (N, D), in eval mode."""
    probabilities: np.ndarray = head.eval()(features)[1].softmax(1).numpy()
    return probabilities


def _page(cfg: DictConfig, probabilities: np.ndarray, features: np.ndarray, out_dir: Path) -> Path:
    """Write `labels.csv` and the page of the classes."""
    from torchvision.datasets import ImageFolder

    from uic_plugin.data.labels import labels_of_probabilities, write_labels
    from uic_plugin.report.page import PageOptions, write_class_page

    root = Path(cfg.data.train_path)
    paths = [Path(p).relative_to(root).as_posix() for p, _ in ImageFolder(root).samples]
    table = labels_of_probabilities(paths, probabilities)
    source = out_dir / "labels.csv"
    write_labels(source, table)
    options = PageOptions(title="Classes of handwritten digits", map="tsne")
    return write_class_page(
        table, source, root, out_dir / "classes", features=features, options=options
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


def _k_means(features: torch.Tensor, num_clusters: int, seed: int) -> np.ndarray:
    from sklearn.cluster import KMeans

    normalised = torch.nn.functional.normalize(features, dim=1).numpy()
    return KMeans(num_clusters, n_init=3, random_state=seed).fit_predict(normalised)


def _images(cfg: DictConfig) -> list[np.ndarray]:
    """Read the training images from the disk, in the order of their index."""
    from torchvision.datasets import ImageFolder

    paths = [path for path, _ in ImageFolder(cfg.data.train_path).samples]
    images = []
    for path in paths:
        with Image.open(path) as image:
            images.append(np.asarray(image.convert("RGB")))
    return images
