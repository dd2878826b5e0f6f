"""`uic costs`: what an epoch boundary costs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from uic_plugin.cli.common import RunPath, Set, terminal


def costs(
    run: RunPath,
    images: Annotated[str, typer.Option(help="Numbers of images, with commas.")] = "10000",
    classes: Annotated[int, typer.Option(help="Pseudo classes K.")] = 3000,
    methods: Annotated[
        str | None, typer.Option(help="With commas; by default all that the host has.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="A CSV file for the rows.")] = None,
    overrides: Set = None,
) -> None:
    """Seconds that an epoch boundary takes beside training: labels, clustering, order."""
    from uic_plugin.experiments.compare.costs import boundary_costs
    from uic_plugin.report.tables import write_csv

    sizes = [part.strip() for part in images.split(",")]
    if not all(part.isdigit() for part in sizes):
        raise ValueError(f"--images must be whole numbers with commas, got {images!r}")
    rows = boundary_costs(
        run,
        [int(part) for part in sizes],
        classes,
        methods=None if methods is None else [name.strip() for name in methods.split(",")],
        overrides=tuple(overrides or ()),
        say=terminal().print,
    )
    if out is not None:
        write_csv(out, rows)
