"""`uic label`, `classes` and `weights`: what a run leaves for others."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from uic_plugin.cli.common import RunPath, Set, terminal

labels_app = typer.Typer(help="What becomes of a run's labels.", no_args_is_help=True)


@labels_app.callback()
def _labels() -> None:
    """What becomes of a run's labels."""


@labels_app.command("migrate")
def migrate(
    run: RunPath,
    data: Annotated[Path, typer.Option(help="The folder of images as it is now.")],
    out: Annotated[
        Path | None, typer.Option(help="Checkpoint to write; migrated.ckpt beside the old one.")
    ] = None,
    index: Annotated[
        Path | None, typer.Option(help="List of the images as they were, if not the run's own.")
    ] = None,
) -> None:
    """Carry labels over to a folder where images were added or removed."""
    from uic_plugin.report.progress import counting
    from uic_plugin.runs.migrate import migrate_labels

    out = out or (run if run.is_dir() else run.parent) / "migrated.ckpt"
    with counting("new images labelled", terminal()) as progress:
        done = migrate_labels(run, data, out, index=index, progress=progress)
    terminal().print(
        f"{out}: {done.kept} images keep their label, {done.added} new ones have one now, "
        f"{done.removed} are gone; {done.splits} empty classes filled"
    )
    terminal().print(
        f"Next: the run's own command with data.train_path={data} data.index=null "
        f"data.fraction=-1 resume_from_checkpoint={out} run_dir=ANOTHER (a finished run has no "
        f"epochs left: only schedulers none and step take a higher max_epochs)"
    )


@labels_app.command("apply")
def apply(
    edits: Annotated[Path, typer.Argument(help="edits.json, as the page of classes saves it.")],
    labels: Annotated[Path, typer.Argument(help="The label file that the page was made of.")],
    out: Annotated[Path, typer.Option(help="Label file to write, .parquet or .csv.")],
    wrong: Annotated[
        str, typer.Option(help="Images marked as wrong: keep, second (best class) or drop.")
    ] = "keep",
    keep_numbers: Annotated[
        bool, typer.Option("--keep-numbers", help="Leave gaps where classes are gone.")
    ] = False,
) -> None:
    """Apply names, merges, splits and moves to a label file."""
    from uic_plugin.data.edits import apply_edits, read_edits
    from uic_plugin.data.labels import check_label_file, read_labels, write_labels

    check_label_file(out)
    if out.exists() and out.samefile(labels):
        raise ValueError(f"--out {out} is the label file itself, which the edits belong to")
    done = apply_edits(
        read_labels(labels), read_edits(edits), wrong=wrong, renumber=not keep_numbers
    )
    write_labels(out, done.table)
    highest = int(done.table.labels.max(initial=-1)) + 1
    terminal().print(
        f"{out}: {len(done.table)} images in {done.classes} classes, {len(done.table.names)} of "
        f"them named; {done.moved} images changed class, {done.dropped} were left out"
    )
    if done.wrong:
        terminal().print(
            f"{done.wrong} images marked as wrong keep their class: --wrong second gives them the "
            f"second-best, --wrong drop leaves them out"
        )
    terminal().print(
        f"Next: uic pretrain ... method_kwargs.fixed_labels={out} "
        f"method_kwargs.num_pseudo_classes={highest}"
    )


def label(
    run: RunPath,
    out: Annotated[Path, typer.Option(help="Label file to write, .parquet or .csv.")],
    data: Annotated[
        Path | None,
        typer.Argument(help="Folder of images, subfolders too; the run's own training images."),
    ] = None,
    view: Annotated[str, typer.Option(help="center, or train: one random view.")] = "center",
    mode: Annotated[
        str, typer.Option(help="eval, or train: dropout and batch statistics.")
    ] = "eval",
    batch_size: Annotated[int, typer.Option(help="Images at once.")] = 256,
    like: Annotated[
        Path | None,
        typer.Option(help="Edited label file whose class numbers and names the images get."),
    ] = None,
    set_: Set = None,
) -> None:
    """Pseudo label, confidence and entropy of every image below a folder, in one pass."""
    from uic_plugin.runs.discovered import find_model, label_with_classes

    model = find_model(run)
    if model is not None:
        if view != "center" or mode != "eval":
            raise ValueError(f"{run} holds classes of 'uic discover': only --view center and eval")
        found = label_with_classes(model, data, out, batch_size=batch_size, console=terminal())
        terminal().print(
            f"{out}: {len(found)} images, mean confidence {found.confidence.mean():.3f}"
        )
        return
    from uic_plugin.report.progress import counting
    from uic_plugin.runs.labelling import LabelSettings, label_images
    from uic_plugin.runs.run import Run

    opened = Run.open(run, set_ or [], needs_images=data is None)
    with counting("images labelled", terminal()) as progress:
        table = label_images(
            opened,
            out,
            data=data,
            settings=LabelSettings(view, mode, batch_size),
            like=like,
            progress=progress,
        )
    used = len(set(table.labels.tolist()))
    terminal().print(
        f"{out}: {len(table)} images in {used} of {opened.head.num_classes} classes, "
        f"mean confidence {table.confidence.mean():.3f}"
    )


def classes(
    labels: Annotated[Path, typer.Argument(help="Label file, as 'uic label' writes it.")],
    data: Annotated[Path, typer.Argument(help="The folder of images that it was made of.")],
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
    from uic_plugin.data.features import read_features
    from uic_plugin.data.labels import read_labels
    from uic_plugin.report.classes import report_classes
    from uic_plugin.report.page import PageOptions, write_class_page
    from uic_plugin.report.progress import counting

    table = read_labels(labels)
    values = None if features is None else read_features(features, table.paths)
    history = None
    if run is not None:
        from uic_plugin.runs.label_history import history_of_run

        history = history_of_run(run, table)
    numbers = report_classes(labels, data, out, show=show, num_classes=num_classes)
    with counting("thumbnails", terminal()) as progress:
        page = write_class_page(
            table,
            labels,
            data,
            out,
            features=values,
            history=history,
            options=PageOptions(title, map_, max_images, thumbnail),
            progress=progress,
        )
    rows = Table("measure", "value")
    for name, value in numbers.items():
        rows.add_row(name, f"{value:.4f}" if isinstance(value, float) else str(value))
    terminal().print(rows)
    terminal().print(f"Table, class sizes and a picture of the classes: {out}")
    terminal().print(f"Page: {page.resolve()}")


def weights(
    run: RunPath,
    out: Annotated[Path, typer.Option(help="File to write, .pth or .safetensors.")],
    layout: Annotated[
        str, typer.Option(help="torchvision or timm: whose names; solo-learn: a checkpoint.")
    ] = "torchvision",
) -> None:
    """Write the network of a run without its heads, for torchvision, timm and others."""
    from uic_plugin.networks.weights import save_weights
    from uic_plugin.runs.run import Run

    opened = Run.open(run)
    save_weights(opened.backbone, out, layout=layout)
    name = opened.config.backbone.name
    terminal().print(f"{out}: {name} of {opened.checkpoint}, layout of {layout}")
