"""`uic classes`: a page of the classes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from uic_plugin.cli.common import terminal

if TYPE_CHECKING:  # importing these takes long, and the command may not need them
    from uic_plugin.data.labels import LabelTable
    from uic_plugin.report.page.history import History


def classes(
    labels: Annotated[Path, typer.Argument(help="Label file, as 'uic label' writes it.")],
    data: Annotated[Path, typer.Argument(help="Its images: a folder, packed or not, or a split.")],
    out: Annotated[Path, typer.Option(help="Folder for page, table and pictures.")] = Path(
        "classes"
    ),
    features: Annotated[
        Path | None,
        typer.Option(help="Features of the images (.npy, .npz or a store): map, similar images."),
    ] = None,
    run: Annotated[
        Path | None, typer.Option(help="Run folder whose snapshots give a history of the classes.")
    ] = None,
    map_: Annotated[
        str, typer.Option("--map", help="auto, pca, umap (needs umap-learn) or tsne.")
    ] = "auto",
    title: Annotated[str | None, typer.Option(help="Heading of the page.")] = None,
    max_images: Annotated[
        int, typer.Option(help="Images on the page; above it a sample of every class.")
    ] = 100_000,
    thumbnail: Annotated[int | None, typer.Option(help="Pixels of a thumbnail's side.")] = None,
    show: Annotated[int, typer.Option(help="Classes in the picture, lowest entropy first.")] = 12,
    num_classes: Annotated[
        int | None, typer.Option(help="K of the run; by default the highest label plus 1.")
    ] = None,
) -> None:
    """Write a page of the classes, to look at and to correct, beside a table and pictures."""
    from uic_plugin.data.labels import read_labels
    from uic_plugin.data.originals import image_folder, image_root
    from uic_plugin.features.stored import read_any_features
    from uic_plugin.report.classes import report_classes
    from uic_plugin.report.page import PageOptions, check_folder, describe_map, write_class_page
    from uic_plugin.report.progress import counting

    if features is None and map_ != "auto":
        raise ValueError(f"--map {map_} needs --features: 'uic embed' computes them")
    options, map_words = PageOptions(title, map_, max_images, thumbnail), describe_map(map_)
    table = read_labels(labels)
    root = image_root(data)
    images = image_folder(root)
    values = None if features is None else read_any_features(features, root, table.paths)
    history = None if run is None else _history(run, table)
    check_folder(out, labels, root)
    numbers = report_classes(labels, images, out, show=show, num_classes=num_classes)
    with counting("thumbnails", terminal()) as progress:
        page = write_class_page(
            table,
            labels,
            images,
            out,
            features=values,
            history=history,
            options=options,
            progress=progress,
        )
    terminal().print(_table_of(numbers))
    terminal().print(f"Table, class sizes and a picture of the classes: {out}")
    if values is not None:
        terminal().print(f"Map: {map_words}")
    terminal().print(f"Page: {page.resolve()}")


def _table_of(numbers: Mapping[str, float | int]) -> Table:
    """Return numbers with their names, for a terminal."""
    rows = Table("measure", "value")
    for name, value in numbers.items():
        rows.add_row(name, f"{value:.4f}" if isinstance(value, float) else str(value))
    return rows


def _history(run: Path, table: LabelTable) -> History:
    from uic_plugin.runs.label_history import history_of_run

    history = history_of_run(run, table)
    if history is None:
        raise ValueError(
            f"{run} has no snapshots with labels: leave --run out, or train with snapshots=N"
        )
    return history
