"""Labels of a run at its snapshots (`uic pretrain ... snapshots=N`), for the history of classes."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch

from uic_plugin.data.index import read_index
from uic_plugin.data.labels import LabelTable
from uic_plugin.hosts.checkpoint_files import read_checkpoint
from uic_plugin.report.page.history import History, history_of
from uic_plugin.runs.datasets import training_paths
from uic_plugin.runs.folder import IMAGES_FILE, SNAPSHOTS
from uic_plugin.runs.run import Run


def history_of_run(run: Path, table: LabelTable) -> History | None:
    """Compare a label file with the labels that a run had at its snapshots.

    Args:
        run: a run folder.
        table: labels of the run's own training images, as `uic label` writes them.

    Returns:
        The history; None for a run that kept no labels in snapshots.

    Raises:
        FileNotFoundError: if there is no such run, or its images are gone and no list of them is
            in it.
        ValueError: if the label file is of other images, or edited: its classes then have other
            numbers than the run's.
    """
    opened = Run.open(run)
    listed = opened.folder / IMAGES_FILE  # as they were: the folder may have changed since
    if not listed.exists():
        opened = Run.open(run, needs_images=True)
    if "source_label" in table.extra:
        raise ValueError(
            "the label file was edited, and its classes have other numbers than the run's: "
            "leave --run out, or give the file that 'uic label' wrote"
        )
    files = sorted((opened.folder / SNAPSHOTS).glob("epoch*.ckpt"))
    kept = [
        (int(content["epoch"]), content["labels"])
        for content in map(read_checkpoint, files)
        if isinstance(content.get("labels"), torch.Tensor)
    ]
    if not kept:
        return None
    images: Iterable[str] = (
        read_index(listed).names()
        if listed.exists()
        else training_paths(opened.config, opened.source)
    )
    row = {path: number for number, path in enumerate(images)}
    unknown = [path for path in table.paths if path not in row]
    if unknown:
        raise ValueError(
            f"{len(unknown)} images of the label file are none of {run}'s, as {unknown[0]!r}: "
            f"leave --run out, or label the run's own images"
        )
    rows = np.fromiter((row[path] for path in table.paths), np.int64, len(table))
    past = [labels.numpy().astype(np.int64)[rows] for _, labels in kept]
    return history_of([epoch for epoch, _ in kept], past, table.labels)
