"""`uic paper`: the paper's tables."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from uic_plugin.cli.common import Overrides, terminal


def paper(
    table: Annotated[str, typer.Argument(help="table1, table2, table3, table5, ..., table8.")],
    overrides: Overrides = None,
    scale: Annotated[str, typer.Option(help="small: a laptop; full: ImageNet.")] = "small",
    seeds: Annotated[int, typer.Option(help="Runs of every row, seeds 0, 1, ...")] = 3,
    jobs: Annotated[int, typer.Option(help="Commands at the same time.")] = 1,
    runs: Annotated[Path, typer.Option(help="Folder of all runs; tables share them.")] = Path(
        "runs/paper"
    ),
    out: Annotated[
        Path | None, typer.Option(help="Folder of the CSV file; by default that of --runs.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Images of table5 (VOC) or table6 (few-shot); in datasets/.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the commands.")] = False,
) -> None:
    """Run what a table of the paper lacks, and print it in the paper's layout."""
    from uic_plugin.experiments.paper.table_runs import run_table

    if seeds < 1:
        raise ValueError(f"--seeds must be at least 1, got {seeds}")
    complete = run_table(
        table,
        scale=scale,
        seeds=range(seeds),
        root=runs,
        out=out or runs,
        parallel=jobs,
        overrides=overrides or [],
        data=data,
        console=terminal(),
        dry_run=dry_run,
    )
    raise typer.Exit(0 if complete else 1)
