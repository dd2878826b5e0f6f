"""`uic discover` from a folder to its classes: features, search, files, figures."""

from __future__ import annotations

import dataclasses
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from uic_plugin.data.folders import ImageList, check_outside, list_images
from uic_plugin.data.labels import check_label_file, read_labels
from uic_plugin.discovery.baselines import BASELINES
from uic_plugin.discovery.correction import Corrected, read_corrections
from uic_plugin.discovery.folder import (
    ASKED,
    PAGE_FOLDER,
    SCORES_FILE,
    SEARCH,
    WORK_FOLDER,
    check_corrected,
    check_folder,
    check_search,
    remove_old,
    search_of,
)
from uic_plugin.discovery.results import ABOUT_FILE, CORRECTED, LABELS_FILES, write_results
from uic_plugin.discovery.search import Found, check_count, discover, identity_of
from uic_plugin.discovery.settings import DiscoverySettings
from uic_plugin.evaluation.clustering import agreement, mean_class_accuracy
from uic_plugin.experiments.discovery_next import say_next
from uic_plugin.experiments.discovery_progress import curve_table, say_empty, shown_progress
from uic_plugin.experiments.finetuning import FOLDER as FINETUNED
from uic_plugin.experiments.finetuning import FineTuning, check_backbone, fine_tune
from uic_plugin.features.embedding import Embedded, embed_images
from uic_plugin.features.store import stored_layer
from uic_plugin.files import told_where
from uic_plugin.networks.layers import AUTO_LAYER
from uic_plugin.networks.pretrained import Backbone
from uic_plugin.pseudo_labels.kmeans import check_faiss
from uic_plugin.report.page import PageOptions, write_class_page
from uic_plugin.report.progress import counting
from uic_plugin.report.tables import read_csv, write_csv
from uic_plugin.runs.frozen import open_backbone

_SHOWN = 5  # unreadable images on the screen


@dataclass(frozen=True)
class Request:
    """The options of `uic discover`."""

    folder: Path
    classes: int | None
    out: Path
    features: Path
    backbone: str
    weights: Path | None
    layer: str
    size: int | None
    precision: str
    workers: int
    csv: bool
    overwrite: bool
    annotations: bool
    baselines: tuple[str, ...]
    corrected: Path | None = None
    page: bool = True
    finetune: int = 0
    features_given: bool = False


def run_discovery(request: Request, settings: DiscoverySettings, console: Console) -> Found:
    """Compute missing features, find classes, write all files, and report to the user.

    The same call resumes a stopped one, up to the page.

    Raises:
        ValueError: for images that cannot be divided, impossible settings, features of another
            network or folder, or if the folder has classes already.
        OSError: if something cannot be read or written.
    """
    with told_where(request.out):
        found = _run(request, settings, console)
        shutil.rmtree(request.out / WORK_FOLDER, ignore_errors=True)
    return found


def _run(request: Request, settings: DiscoverySettings, console: Console) -> Found:
    check_faiss()
    _check(request, settings)
    replaces = request.overwrite and (request.out / ABOUT_FILE).exists()
    images = list_images(request.folder)
    check_count(len(images.names), request.classes)
    _check_images(request, images)
    backbone = open_backbone(
        request.backbone, weights=request.weights, layer=_layer(request), size=request.size
    )
    embedded = _embed(request, backbone, images, console)
    check_count(len(embedded.names), request.classes)
    start = time.perf_counter()
    found = _search(request, settings, embedded, console)
    seconds = time.perf_counter() - start
    said: dict[str, Any] = {"seconds": round(seconds, 1), "images": len(embedded.names)}
    said |= {ASKED: request.classes, SEARCH: search_of(request.out)}
    labels = write_results(request.out, embedded.names, found, settings, csv=request.csv, said=said)
    if replaces:
        remove_old(request.out, _written(request, labels))
    if found.count is not None:
        console.print(curve_table(found))
        console.print(found.count.explanation())
    if found.balance is not None:
        console.print(found.balance.explanation())
    if request.annotations:
        _score(request, images, embedded, found, settings, console)
    if request.finetune:
        _fine_tune(request, images, embedded, backbone, labels, found, settings, console)
    kept = f"{embedded.seconds:.0f} s" if embedded.added else "were there"
    say_empty(found, settings, console)
    console.print(
        f"{len(embedded.names):,} images · features {kept} (kept) · {settings.heads} heads "
        f"{seconds:.0f} s · {found.model.num_classes} classes, agreement of heads "
        f"{found.agreement:.2f} -> {request.out}/"
    )
    page = None
    if request.page and images.originals.is_dir():
        page = _write_page(request, images, embedded, labels, console)
    say_next(request, images, labels, page, console)
    return found


def _search(
    request: Request, settings: DiscoverySettings, embedded: Embedded, console: Console
) -> Found:
    """Find the classes; finished ones of another search stay, unless they are not wanted."""
    corrected = _corrections(request, embedded.names)
    features = embedded.store.features(embedded.names)
    if not request.overwrite:
        check_search(request.out, lambda: identity_of(features, settings, corrected))
    about = dataclasses.asdict(embedded.store.identity)
    with shown_progress(console) as progress:
        return discover(
            features,
            request.classes,
            settings,
            corrected=corrected,
            about={**about, CORRECTED: _fingerprint(request.corrected)},
            work=request.out / WORK_FOLDER,
            keep_work=True,
            progress=progress,
        )


def _layer(request: Request) -> str:
    """Return the layer: where none was asked for that of the features that are there, if any."""
    if request.layer != AUTO_LAYER:
        return request.layer
    return stored_layer(request.features) or AUTO_LAYER


def _written(request: Request, labels: Path) -> set[str]:
    """Return what a discovery writes on request, or always under one of two names."""
    asked = {
        SCORES_FILE: request.annotations,
        PAGE_FOLDER: request.page,
        FINETUNED: bool(request.finetune),
    }
    return {labels.name, *(name for name, is_asked in asked.items() if is_asked)}


def _check(request: Request, settings: DiscoverySettings) -> None:
    """Refuse, before any work is done, what would fail after it."""
    check_outside(request.out, request.folder)
    if request.finetune:
        check_backbone(request.backbone)
    if request.corrected is not None:
        check_corrected(request.out, request.corrected)
    if not request.overwrite:
        check_folder(request.out, request.classes, settings)


def _check_images(request: Request, images: ImageList) -> None:
    """Refuse, before any work is done, images that an option cannot be used with."""
    _corrections(request, images.names)
    check_label_file(request.out / LABELS_FILES[request.csv], images.names)
    if request.annotations:
        _annotations(images, [])
    if request.finetune and not images.originals.is_dir():
        raise ValueError(
            f"--finetune reads image files, and {images.originals}, which {images.root} was packed "
            f"from, is gone"
        )


def _corrections(request: Request, names: list[str]) -> Corrected | None:
    """Read the corrected classes that the search starts from, if there are any."""
    if request.corrected is None:
        return None
    corrected = read_corrections(read_labels(request.corrected), names, str(request.corrected))
    if request.classes not in (None, corrected.num_classes):
        raise ValueError(
            f"--from {request.corrected} has {corrected.num_classes} classes: leave --classes "
            f"{request.classes} out"
        )
    return corrected


def _fingerprint(corrected: Path | None) -> str | None:
    """Return the fingerprint of the label file that the search starts from, if there is one."""
    return None if corrected is None else read_labels(corrected).fingerprint


def _write_page(
    request: Request, images: ImageList, embedded: Embedded, labels: Path, console: Console
) -> Path:
    """Write the page of the classes, with the features' map and similar images."""
    with counting("thumbnails", console) as progress:
        return write_class_page(
            read_labels(labels),
            labels,
            images.originals,
            request.out / PAGE_FOLDER,
            features=embedded.store.features(embedded.names),
            options=PageOptions(title=f"Classes of {request.folder.name}"),
            progress=progress,
        )


def say_bad(done: Embedded, root: Path, console: Console) -> None:
    """Name images that could not be read."""
    for entry in done.bad[:_SHOWN]:
        console.print(f"left out: {root / entry.name} ({entry.reason})")
    if len(done.bad) > _SHOWN:
        console.print(f"left out: {len(done.bad) - _SHOWN} more, named in {done.store.path}")


def _embed(request: Request, backbone: Backbone, images: ImageList, console: Console) -> Embedded:
    with counting("features", console) as progress:
        done = embed_images(
            backbone,
            images,
            request.features,
            precision=request.precision,
            num_workers=request.workers,
            progress=progress,
        )
    say_bad(done, images.root, console)
    return done


def _score(
    request: Request,
    images: ImageList,
    embedded: Embedded,
    found: Found,
    settings: DiscoverySettings,
    console: Console,
) -> None:
    """Compare with annotations, which nothing else uses, and write `scores.csv`."""
    truth = _annotations(images, embedded.names)
    features = embedded.store.features(embedded.names)
    count = found.model.num_classes
    rows = [{"method": "uic discover", **_figures(truth, found.answers.labels, count)}]
    for name in request.baselines:
        start = time.perf_counter()
        figures = _figures(truth, BASELINES[name](features, count, settings.seed), count)
        rows.append({"method": name, **figures, "seconds": time.perf_counter() - start})
    said = {"images": len(truth), "classes": count, "seed": settings.seed}
    write_csv(request.out / SCORES_FILE, [{**row, **said} for row in rows])
    columns = list(rows[0])
    table = Table(*columns)
    for row in rows:
        cells = [row.get(name, "") for name in columns]
        table.add_row(*(f"{c:.3f}" if isinstance(c, float) else str(c) for c in cells))
    console.print(table)


def _fine_tune(
    request: Request,
    images: ImageList,
    embedded: Embedded,
    backbone: Backbone,
    labels: Path,
    found: Found,
    settings: DiscoverySettings,
    console: Console,
) -> None:
    """Train the network on the classes, label the images again, compare where that was asked."""
    count = found.model.num_classes
    tuning = FineTuning(
        backbone=backbone,
        root=images.originals,
        names=embedded.names,
        labels=labels,
        num_classes=count,
        epochs=request.finetune,
        seed=settings.seed,
        workers=request.workers,
        out=request.out,
    )
    table = fine_tune(tuning, console)
    moved = float(np.mean(table.labels != found.answers.labels))
    console.print(
        f"fine-tuned: {moved:.1%} of the images changed class -> {request.out / FINETUNED}/",
        soft_wrap=True,
    )
    if request.annotations:
        truth = _annotations(images, embedded.names)
        figures = _figures(truth, table.labels, count)
        name = f"uic discover --finetune {request.finetune}"
        said = {"images": len(truth), "classes": count, "seed": settings.seed}
        rows: list[dict[str, Any]] = [*read_csv(request.out / SCORES_FILE)]
        write_csv(request.out / SCORES_FILE, [*rows, {"method": name, **figures, **said}])
        console.print(name + "".join(f"  {k} {v:.3f}" for k, v in figures.items()))


def _annotations(images: ImageList, names: list[str]) -> np.ndarray:
    """Return the annotations of those of the images that have features, (len(names),)."""
    if images.annotations is None:
        raise ValueError(f"{images.root}: --annotations needs a subfolder for each class")
    annotation = dict(zip(images.names, images.annotations, strict=True))
    return np.asarray([annotation[name] for name in names])


def _figures(truth: np.ndarray, labels: np.ndarray, count: int) -> dict[str, float]:
    """Return agreement with annotations, and the mean accuracy over annotated classes."""
    numbers = agreement(truth, labels, count)
    if "hungarian_accuracy" in numbers:
        numbers["mean_class_accuracy"] = mean_class_accuracy(truth, labels)
    del numbers["nmi_geometric"]
    return numbers
