"""`uic compare`: runs what is missing, measures it, writes table, CSV and page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from uic_plugin.compare.page import write_page
from uic_plugin.compare.plan import (
    Entry,
    Run,
    Setting,
    calibration,
    epochs_of_budget,
    epochs_of_minutes,
    plan_run,
)
from uic_plugin.compare.results import collect, curve_rows, summarize, summary_table
from uic_plugin.jobs import Job, reason_of, run_jobs
from uic_plugin.report.tables import write_csv


def compare(
    setting: Setting,
    entries: Sequence[Entry],
    seeds: Sequence[int],
    *,
    out: Path,
    parallel: int,
    console: Console,
    dry_run: bool = False,
) -> bool:
    """Run what a comparison lacks and write its tables, curves and page into `out`.

    `runs.csv`, `curves.csv` and `summary.csv`, `index.html` and `curves.png`.

    A run that fails stops nothing else and shows as failed, with its reason.

    Args:
        setting: what all runs share.
        entries: its lines.
        seeds: of every line.
        out: folder of the results.
        parallel: commands at the same time, each with its part of the cores.
        console: where the progress and the table go.
        dry_run: print every command, run nothing.

    Returns:
        Whether everything was done.

    Raises:
        ValueError: for a recipe that cannot be.
        Interrupted: if the user stopped it.
    """
    if parallel < 1:
        raise ValueError(f"--jobs must be at least 1, got {parallel}")
    failures: dict[str, str] = {}
    if setting.budget.kind == "minutes" and not dry_run:
        jobs = {e.label: calibration(setting, e) for e in entries if e.method != "random"}
        failed = _run([job for job in jobs.values() if not job.is_done()], parallel, console)
        failures = {
            label: f"calibration: {failed[job.name]}"
            for label, job in jobs.items()
            if job.name in failed
        }
    runs = [
        run
        for entry in entries
        if entry.label not in failures
        for run in _runs(setting, entry, seeds, dry_run=dry_run)
    ]
    if dry_run:
        for run in runs:
            for job in run.jobs:
                console.print(job.command)
        return True
    commands = [job for run in runs for job in run.jobs]
    todo = [job for job in commands if not job.is_done()]
    console.print(
        f"{len(entries)} methods, {len(seeds)} seeds, {setting.budget} each: {len(commands)} "
        f"commands, {len(commands) - len(todo)} of them done already"
    )
    failed = _run(todo, parallel, console)
    rows = collect(runs, setting, failed, failures)
    write_csv(out / "runs.csv", rows)
    curves = curve_rows(runs)
    if curves:
        write_csv(out / "curves.csv", curves)
    summary = summarize(rows)
    write_csv(out / "summary.csv", summary)
    page = write_page(out / "index.html", setting, summary, curves, rows)
    console.print(summary_table(setting, summary))
    for row in rows:
        if row["failed"]:
            console.print(f"failed: {row['label']}, seed {row['seed']}: {row['failed']}")
    console.print(f"{out / 'runs.csv'} has every run, {page} the curves")
    return not any(row["failed"] for row in rows)


def _runs(setting: Setting, entry: Entry, seeds: Sequence[int], *, dry_run: bool) -> list[Run]:
    if entry.method == "random":
        epochs: int | None = 1
    else:
        epochs = epochs_of_budget(setting, entry, seeds[0])
    if epochs is None:
        epochs = 1 if dry_run else epochs_of_minutes(setting, entry)
    return [plan_run(setting, entry, seed, epochs) for seed in seeds]


def _run(jobs: list[Job], parallel: int, console: Console) -> dict[str, str]:
    """Names and reasons of the jobs that failed."""
    return {
        name: reason_of(log) if log.exists() else "not started"
        for name, log in run_jobs(jobs, parallel, console.print).items()
    }
