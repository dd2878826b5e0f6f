"""`uic label`, `classes` and `weights`: what a run leaves for others."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from uic_plugin.cli.common import Run, Set, terminal

labels_app = typer.Typer(help="What becomes of a run's labels.", no_args_is_help=True)


@labels_app.callback()
def _labels() -> None:
    """What becomes of a run's labels."""


@labels_app.command("migrate")
def migrate(
    run: Run,
    data: Annotated[Path, typer.Option(help="The folder of images as it is now.")],
    out: Annotated[
        Path | None, typer.Option(help="Checkpoint to write; migrated.ckpt beside the old one.")
    ] = None,
    index: Annotated[
        Path | None, typer.Option(help="List of the images as they were, if not the run's own.")
    ] = None,
) -> None:
    """Carry labels over to a folder where images were added or removed."""
    from uic_plugin.hosts.migrate import migrate_labels
    from uic_plugin.report.progress import counting

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


def label(
    run: Run,
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
    set_: Set = None,
) -> None:
    """Pseudo label, confidence and entropy of every image below a folder, in one pass."""
    from uic_plugin.hosts.discovered import find_model, label_with_classes

    model = find_model(run)
    if model is not None:
        if view != "center" or mode != "eval":
            raise ValueError(f"{run} holds classes of 'uic discover': only --view center and eval")
        found = label_with_classes(model, data, out, batch_size=batch_size, console=terminal())
        terminal().print(
            f"{out}: {len(found)} images, mean confidence {found.confidence.mean():.3f}"
        )
        return
    from uic_plugin.hosts.evaluation import load_method
    from uic_plugin.hosts.labelling import label_images
    from uic_plugin.hosts.runs import open_run
    from uic_plugin.report.progress import counting

    cfg, checkpoint = open_run(run, set_ or [])
    method, cfg, source = load_method(cfg, checkpoint, needs_images=data is None)
    with counting("images labelled", terminal()) as progress:
        table = label_images(
            method,
            cfg,
            source,
            out,
            data=data,
            view=view,
            mode=mode,
            batch_size=batch_size,
            progress=progress,
        )
    used = len(set(table.labels.tolist()))
    terminal().print(
        f"{out}: {len(table)} images in {used} of {cfg.method_kwargs.num_pseudo_classes} classes, "
        f"mean confidence {table.confidence.mean():.3f}"
    )


def classes(
    labels: Annotated[Path, typer.Argument(help="Label file, as 'uic label' writes it.")],
    data: Annotated[Path, typer.Argument(help="The folder of images that it was made of.")],
    out: Annotated[Path, typer.Option(help="Folder for table and pictures.")] = Path("classes"),
    show: Annotated[int, typer.Option(help="Classes in the picture, lowest entropy first.")] = 12,
    num_classes: Annotated[
        int | None, typer.Option(help="K of the run; the highest label plus 1 unless told.")
    ] = None,
) -> None:
    """Class sizes, entropy, example images and, with annotated folders, NMI and its kin."""
    from uic_plugin.report.classes import report_classes

    numbers = report_classes(labels, data, out, show=show, num_classes=num_classes)
    table = Table("measure", "value")
    for name, value in numbers.items():
        table.add_row(name, f"{value:.4f}" if isinstance(value, float) else str(value))
    terminal().print(table)
    terminal().print(f"Table, class sizes and a picture of the classes: {out}")


def weights(
    run: Run,
    out: Annotated[Path, typer.Option(help="File to write, .pth or .safetensors.")],
    layout: Annotated[
        str, typer.Option(help="torchvision or timm: whose names; solo-learn: a checkpoint.")
    ] = "torchvision",
) -> None:
    """Write the network of a run without its heads, for torchvision, timm and others."""
    from uic_plugin.hosts import backbone_of
    from uic_plugin.hosts.evaluation import load_method
    from uic_plugin.hosts.runs import open_run
    from uic_plugin.networks.weights import save_weights

    cfg, checkpoint = open_run(run)
    method, cfg, _ = load_method(cfg, checkpoint, needs_images=False)
    save_weights(backbone_of(method), out, layout=layout)
    terminal().print(f"{out}: {cfg.backbone.name} of {checkpoint}, layout of {layout}")
