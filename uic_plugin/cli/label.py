"""`uic label`: pseudo labels of a folder of images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from uic_plugin.cli.common import RunPath, Set, terminal
from uic_plugin.cli.options import options_of
from uic_plugin.runs.label_settings import LabelSettings


@options_of(LabelSettings)
def label(
    run: RunPath,
    out: Annotated[Path, typer.Option(help="Label file to write, .parquet or .csv.")],
    data: Annotated[
        Path | None,
        typer.Argument(help="Folder of images, subfolders too; the run's own training images."),
    ] = None,
    like: Annotated[
        Path | None,
        typer.Option(help="Edited label file whose class numbers and names the images get."),
    ] = None,
    set_: Set = None,
    *,
    settings: LabelSettings,
) -> None:
    """Pseudo label, confidence and entropy of every image below a folder, in one pass."""
    from uic_plugin.runs.discovered import find_model, label_with_classes

    model = find_model(run)
    if model is not None:
        if settings.view != "center" or settings.mode != "eval" or settings.classes:
            raise ValueError(
                f"{run} holds classes of 'uic discover': only --view center --mode eval, and no "
                f"--classes"
            )
        if set_:
            raise ValueError(f"{run} holds classes of 'uic discover' and has no recipe for --set")
        found = label_with_classes(
            model, data, out, batch_size=settings.batch_size, like=like, console=terminal()
        )
        terminal().print(
            f"{out}: {len(found)} images, mean confidence {found.confidence.mean():.3f}"
        )
        return
    from uic_plugin.report.progress import counting
    from uic_plugin.runs.labelling import label_images
    from uic_plugin.runs.run import Run

    opened = Run.open(run, set_ or [], needs_images=data is None)
    with counting("images labelled", terminal()) as progress:
        table = label_images(
            opened,
            out,
            data=data,
            settings=settings,
            like=like,
            progress=progress,
        )
    used = len(set(table.labels.tolist()))
    terminal().print(
        f"{out}: {len(table)} images in {used} of {settings.classes or opened.head.num_classes} "
        f"classes, "
        f"mean confidence {table.confidence.mean():.3f}"
    )
