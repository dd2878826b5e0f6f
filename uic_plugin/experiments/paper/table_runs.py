"""Run the missing jobs of a table; a failure stops only the jobs that need it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from uic_plugin.experiments.jobs import Job, run_missing
from uic_plugin.experiments.paper.table_jobs import plan
from uic_plugin.experiments.paper.table_rows import collect, merged, paper_table
from uic_plugin.experiments.paper.tables import PROBE, TABLES, PaperTable
from uic_plugin.recipes_path import compose_recipe, recipes_dir
from uic_plugin.report.tables import write_csv


def run_table(
    name: str,
    *,
    scale: str,
    seeds: Sequence[int],
    root: Path,
    out: Path,
    parallel: int,
    overrides: Sequence[str],
    data: Path | None = None,
    console: Console,
    dry_run: bool = False,
) -> bool:
    """Run the missing jobs of a table, write `OUT/NAME.csv`, print the table.

    Args:
        name: one of `TABLES`.
        scale: "small" or "full".
        seeds: of every row.
        root: folder of the runs; all tables share it.
        out: folder of the CSV file.
        parallel: number of parallel commands, each with its share of the cores.
        overrides: Hydra overrides of every training.
        data: images of Tables 5 and 6: folder with VOCdevkit, or of held-out classes.
        console: for the progress and the table.
        dry_run: compose every recipe and print every command, run nothing.

    Returns:
        Whether everything is done.

    Raises:
        ValueError: for an unknown table or scale, or a run folder of other settings.
        Interrupted: if the user stopped it.
    """
    if name not in TABLES:
        raise ValueError(f"unknown table {name!r}: one of {', '.join(TABLES)}")
    if scale not in ("small", "full"):
        raise ValueError(f"--scale must be small or full, got {scale!r}")
    if parallel < 1:
        raise ValueError(f"--jobs must be at least 1, got {parallel}")
    table = TABLES[name]
    jobs = plan(table, scale, seeds, root, overrides, data)
    for job in jobs:
        if job.recipe:
            compose_recipe(job.recipe, list(job.overrides))
    if dry_run:
        _print_commands(jobs, console)
        return True
    failed = run_missing(jobs, parallel, console, f"{name}: ")
    path = out / f"{name}.csv"
    records = collect(table, scale, seeds, root)
    write_csv(path, merged(path, records, scale))
    console.print(paper_table(table, records, scale))
    _print_notes(table, path, failed, console)
    return not failed


def _print_commands(jobs: Sequence[Job], console: Console) -> None:
    for job in jobs:
        console.print(job.command)
        takes = _header(job.recipe, "Hardware") if job.recipe else job.takes
        console.print(f"    {takes}")
    console.print(f"{len(jobs)} commands; those of one row in this order")


def _print_notes(table: PaperTable, path: Path, failed: dict[str, Path], console: Console) -> None:
    """Print what the figures of a table in a CSV file are, and which jobs failed."""
    if table.note:
        console.print(table.note)
    is_probe = table.task == PROBE
    what = "top-1 in percent, probe of the last epoch, 10 crops" if is_probe else "percent"
    console.print(
        f"measured here: {what}; mean ± standard deviation over the seeds that {path} names"
    )
    for failure, log in failed.items():
        console.print(f"failed: {failure} (see {log})")


def _header(recipe: str, word: str) -> str:
    """Return a line of a recipe's header."""
    for line in (recipes_dir() / f"{recipe}.yaml").read_text().splitlines():
        if line.startswith(f"# {word}:"):
            return line.partition(":")[2].strip()
    return ""
