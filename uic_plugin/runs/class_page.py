"""What a finished run of UIC ends with: its classes, as a label file and as a page."""

from __future__ import annotations

import os
import shlex
import shutil
from pathlib import Path

import numpy as np
from rich.console import Console

from uic_plugin.data.folders import ImageList
from uic_plugin.data.labels import read_labels
from uic_plugin.data.packed import open_packed
from uic_plugin.features.embedding import embed_images
from uic_plugin.features.store import ABOUT_FILE, FeatureStore
from uic_plugin.methods import has_pseudo_labels
from uic_plugin.report.page import PageOptions, write_class_page
from uic_plugin.runs.datasets import training_paths
from uic_plugin.runs.folder import CHECKPOINT_FILE, read_run
from uic_plugin.runs.frozen import open_backbone
from uic_plugin.runs.label_history import history_of_run
from uic_plugin.runs.labelling import label_images
from uic_plugin.runs.run import Run

LABELS_FILE, PAGE_FOLDER, FEATURES_FOLDER = "labels.csv", "classes", "features"
_MOST_IMAGES = 100_000  # above it a pass over all images takes long, and is left to the user
_MOST_MAPPED = 10_000  # above it a second pass, for the map's features, is left to the user


def page_of_run(run_dir: Path, console: Console) -> Path | None:
    """Label the training images of a run once, and write a page of them.

    Args:
        run_dir: a finished run.
        console: is told how to make the page where it is left to the user.

    Returns:
        The page, with a map of at most 10,000 images, whose features are kept in the run folder;
        None for a run without pseudo labels or image files, of more than 100,000
        images, or of several processes. That of a packed folder shows the files it was made of.

    Raises:
        ValueError, OSError: if an image cannot be read or the page not be written.
    """
    name = read_run(run_dir / CHECKPOINT_FILE)[0].method
    if not has_pseudo_labels(name) or name == "supervised":
        return None
    run = Run.open(run_dir / CHECKPOINT_FILE, needs_images=True)
    source = run.source
    folder = source.train
    if source.format == "packed":
        folder = open_packed(source.train).folder  # the page shows the originals
    if source.format not in ("image_folder", "packed") or not folder.is_dir():
        return None
    images = training_paths(run.config, source)
    labels, page = run_dir / LABELS_FILE, run_dir / PAGE_FOLDER
    if len(images) > _MOST_IMAGES or int(os.environ.get("WORLD_SIZE", "1")) > 1:
        console.print(
            f"A page of the classes: {_command('label', run_dir, '--out', labels)}, then "
            f"{_command('classes', labels, folder, '--out', page)}"
        )
        return None
    label_images(run, labels)
    table = read_labels(labels)
    features = None
    if len(table) <= _MOST_MAPPED:
        features = _features(run, ImageList(source.train, table.paths, None))
    else:
        embed = _command("embed", folder, "--backbone", run_dir, "--out", "FEATURES")
        shown = _command("classes", labels, folder, "--features", "FEATURES", "--out", page)
        console.print(f"A map of the classes: {embed}, then {shown}")
    return write_class_page(
        table,
        labels,
        folder,
        page,
        features=features,
        history=history_of_run(run_dir, table),
        options=PageOptions(title=f"Classes of {run_dir.name}"),
    )


def _command(*words: str | Path) -> str:
    """Return a command of `uic` as a shell reads it, whatever is in the names of files."""
    return shlex.join(("uic", *map(str, words)))


def _features(run: Run, images: ImageList) -> np.ndarray | None:
    """Return the features of the labelled images, (N, D), by the run's own network.

    None if an image has become unreadable: the page then has no map.
    """
    backbone, store = open_backbone(str(run.checkpoint)), run.folder / FEATURES_FOLDER
    kept = FeatureStore.open(store).identity.fingerprint if (store / ABOUT_FILE).exists() else ""
    if kept not in ("", backbone.fingerprint):
        shutil.rmtree(store)  # of an earlier training in this folder
    done = embed_images(
        backbone,
        images,
        store,
        precision="32",
        num_workers=run.config.data.num_workers,
    )
    return None if done.bad else done.store.features(done.names)
