"""Pictures of a run: curves over epochs, and images of each class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from uic_plugin.files import replacing
from uic_plugin.report.tables import read_csv

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def read_history(path: Path) -> dict[str, list[float]]:
    """Read the columns of a run's `epochs.csv`; epochs without a value are NaN."""
    rows = read_csv(path)
    return {name: [float(row[name] or "nan") for row in rows] for name in rows[0]} if rows else {}


def _written(figure: Figure, path: Path, *, dpi: int) -> Path:
    """Write a figure as a PNG, completely or not at all."""
    with replacing(path) as part:
        figure.savefig(part, format="png", dpi=dpi)
    return path


def plot_curves(histories: Mapping[str, Mapping[str, Sequence[float]]], path: Path) -> Path:
    """Plot loss, NMI, purity and share of changed labels of UIC runs over epochs.

    Args:
        histories: a run's name to its columns, see `read_history`.
        path: the PNG to write.
    """
    from matplotlib.figure import Figure

    panels = {
        "loss": ["train_uic_loss_epoch", "train_uic_loss"],
        "NMI to annotations": ["uic_nmi"],
        "purity": ["uic_purity"],
        "share of labels changed": ["uic_changed"],
    }
    figure = Figure(figsize=(12, 2.8), layout="constrained")
    axes = figure.subplots(1, len(panels))
    for axis, (title, names) in zip(axes, panels.items(), strict=True):
        for run, columns in histories.items():
            name = next((n for n in names if n in columns), None)
            if name:
                axis.plot(columns["epoch"], columns[name], label=run)
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("epoch", fontsize=9)
        axis.grid(alpha=0.3)
        axis.tick_params(labelsize=8)
    if len(histories) > 1:
        axes[0].legend(fontsize=8)
    return _written(figure, path, dpi=100)


def plot_classes(
    images: Sequence[np.ndarray],
    labels: np.ndarray,
    confidence: np.ndarray,
    path: Path,
    *,
    sizes: np.ndarray,
    order: np.ndarray | None = None,
    columns: int = 12,
    blocks: int = 3,
) -> Path:
    """Plot the most confident images of each class, one row per class, largest classes first.

    Args:
        images: N images (H, W, 3) uint8, of one size.
        labels: (N,) pseudo classes.
        confidence: (N,) softmax score of the pseudo class, by which the images of a row are sorted.
        path: the PNG to write.
        sizes: (K,) images per class, including those that are not shown.
        order: classes to show, from the top; by default all non-empty ones, by size.
        columns: images in a row.
        blocks: number of rows beside each other.
    """
    from matplotlib.figure import Figure

    ordered = order if order is not None else np.argsort(-sizes, kind="stable")
    classes = [int(c) for c in ordered if sizes[c]]
    height, width = images[0].shape[:2]
    rows = -(-len(classes) // blocks)
    figure = Figure(figsize=(blocks * (columns * 0.3 + 0.8), rows * 0.33 + 0.1))
    for rank, label in enumerate(classes):
        block, row = divmod(rank, rows)
        members = np.flatnonzero(labels == label)
        members = members[np.argsort(-confidence[members], kind="stable")][:columns]
        strip = np.full((height, columns * (width + 1), 3), 255, dtype=np.uint8)
        for column, member in enumerate(members):
            left = column * (width + 1)
            strip[:, left : left + width] = images[int(member)]
        axis = figure.add_axes(
            (
                (block + 0.2) / blocks,
                1 - (row + 0.93) / rows,
                0.79 / blocks,
                0.86 / rows,
            )
        )
        axis.imshow(strip, interpolation="nearest", aspect="auto")
        axis.set_axis_off()
        figure.text(
            (block + 0.185) / blocks,
            1 - (row + 0.5) / rows,
            f"class {label}  n={sizes[label]}",
            ha="right",
            va="center",
            fontsize=6,
        )
    return _written(figure, path, dpi=110)


def plot_class_sizes(sizes: np.ndarray, path: Path) -> Path:
    """Plot the histogram of class sizes (UIC, Fig. 3), with the size of equal classes marked.

    Args:
        sizes: (K,) images per class.
        path: the PNG to write.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 3), layout="constrained")
    axis = figure.subplots()
    axis.hist(sizes, bins=min(40, max(5, len(sizes) // 4)))
    axis.axvline(sizes.mean(), color="black", linestyle="--", label="equal classes")
    axis.set_xlabel("images in the class")
    axis.set_ylabel("classes")
    axis.legend()
    return _written(figure, path, dpi=100)
