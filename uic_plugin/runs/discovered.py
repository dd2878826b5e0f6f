"""Label new images with the classes that `uic discover` found."""

from __future__ import annotations

import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from uic_plugin.data.folders import ImageList, list_images
from uic_plugin.data.labels import (
    LabelTable,
    check_label_file,
    read_labels,
    relabel_like,
    write_labels,
)
from uic_plugin.discovery.model import ClassModel
from uic_plugin.discovery.results import CORRECTED, LABELS_FILES, MODEL_FILE, label_table
from uic_plugin.features.embedding import embed_images
from uic_plugin.features.store import ABOUT_FILE, FeatureStore
from uic_plugin.networks.pretrained import Backbone
from uic_plugin.report.progress import counting
from uic_plugin.runs.frozen import open_backbone

_MOST_AT_ONCE = 32  # images of 224 pixels: more take memory and no less time on a CPU


def find_model(path: Path) -> Path | None:
    """Return the model in a folder of `uic discover`, or the model itself, else None."""
    if path.is_dir() and (path / MODEL_FILE).is_file():
        return path / MODEL_FILE
    return path if path.name == MODEL_FILE and path.is_file() else None


def label_with_classes(
    model_file: Path,
    data: Path | None,
    out: Path,
    *,
    batch_size: int,
    like: Path | None = None,
    console: Console,
) -> LabelTable:
    """Label a folder's images; their features lie in `OUT.features` until it is done.

    Args:
        model_file: the model.
        data: a folder of images or a split's .csv.
        out: `.parquet` or `.csv`.
        batch_size: images at once, at most 32.
        like: an edited label file of these classes, whose numbers and names are used.
        console: for progress and images that cannot be read.

    Raises:
        ValueError: without a folder, if the network's weights are not those of the classes, or if
            `like` is of other classes, or may be.
        FileNotFoundError: if there is no `like`, no model or no image.
        OSError: if the label file cannot be written.
    """
    if data is None:
        raise ValueError(f"{model_file} labels new images: give their folder")
    check_label_file(out)
    model = ClassModel.load(model_file)
    reference = None if like is None else _reference(like, model, model_file)
    backbone = _backbone_of(model, model_file)
    images = list_images(data)
    check_label_file(out, images.names)
    work = out.with_name(out.name + ".features")
    precision = str(model.features["precision"])
    _remove_others(work, backbone, images, precision)
    with counting("images labelled", console) as progress:
        done = embed_images(
            backbone,
            images,
            work,
            precision=precision,
            batch_size=min(batch_size, _MOST_AT_ONCE),
            progress=progress,
        )
    for entry in done.bad:
        console.print(f"left out: {images.root / entry.name} ({entry.reason})")
    answers = model(done.store.features(done.names))
    table = label_table(done.names, answers, model)
    if reference is not None:
        table = relabel_like(table, reference)
    write_labels(out, table)
    shutil.rmtree(work)
    return table


def _remove_others(work: Path, backbone: Backbone, images: ImageList, precision: str) -> None:
    """Remove the features that a stopped call for another folder or network has left."""
    if not (work / ABOUT_FILE).is_file():
        return
    left = FeatureStore.open(work).identity
    network = (backbone.fingerprint, backbone.layer, backbone.preprocessing)
    own = (str(images.root.resolve()), precision, *network)
    kept = (left.folder, left.precision, left.fingerprint, left.layer, left.preprocessing)
    if kept != own:
        shutil.rmtree(work)


def _reference(like: Path, model: ClassModel, model_file: Path) -> LabelTable:
    """Return an edited label file of the model's classes.

    Raises:
        ValueError: if it has classes that the model does not have, or was edited from others.
    """
    table = read_labels(like)
    if table.fingerprint == model.features.get(CORRECTED):
        # the classes started from these labels: what the numbers were before does not matter
        own = {name: values for name, values in table.extra.items() if name != "source_label"}
        return replace(table, extra=own)
    numbers = table.extra.get("source_label", table.labels)
    if numbers.dtype.kind == "i" and numbers.max(initial=0) >= model.num_classes:
        raise ValueError(
            f"--like {like} has class {numbers.max()}, {model_file} has {model.num_classes} "
            f"classes: give a label file of these, edited"
        )
    if model.features.get(CORRECTED) is not None and "source_label" in table.extra:
        _check_numbers(like, table, model_file)
    return table


def _check_numbers(like: Path, table: LabelTable, model_file: Path) -> None:
    """Refuse edits of the classes that a model's correction was of, which had other numbers."""
    found = [path for name in LABELS_FILES if (path := model_file.with_name(name)).is_file()]
    if not found:
        raise ValueError(
            f"--like {like} cannot be compared with the classes of {model_file}, which began with "
            f"a correction: put their {LABELS_FILES[0]} beside it"
        )
    if not any(_are_of(table, read_labels(path)) for path in found):
        raise ValueError(
            f"--like {like} was edited from other classes (its source_label) than those of "
            f"{model_file}: edit {found[0]}, or find classes anew by 'uic discover --from {like}'"
        )


def _are_of(edited: LabelTable, own: LabelTable) -> bool:
    """Tell whether edits are of these classes: most images have the same number in both.

    That is so for every class of either, by the images that both label; without any it is not known
    to be otherwise.
    """
    label_of = dict(zip(own.paths, own.labels.tolist(), strict=True))
    before = zip(edited.paths, edited.extra["source_label"].tolist(), strict=True)
    votes = Counter((number, label_of[path]) for path, number in before if path in label_of)
    return all(
        votes[one, one] >= count and votes[other, other] >= count
        for (one, other), count in votes.items()
    )


def _backbone_of(model: ClassModel, model_file: Path) -> Backbone:
    """Open the network of the model's features again.

    Raises:
        ValueError: if its weights are others now.
    """
    features = model.features
    weights, size = features.get("weights"), features.get("size")
    backbone = open_backbone(
        str(features["backbone"]),
        weights=Path(str(weights)) if weights else None,
        layer=str(features["layer"]),
        size=int(size) if size else None,
    )
    if backbone.fingerprint != features["fingerprint"]:
        raise ValueError(
            f"{model_file} needs {features['backbone']} with weights {features['fingerprint']}, "
            f"here they are {backbone.fingerprint}: its features would mean something else"
        )
    return backbone
