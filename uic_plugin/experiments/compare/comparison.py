"""`uic compare`: run and measure the missing runs, write table, CSV and page."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from uic_plugin.experiments.compare.page import write_page
from uic_plugin.experiments.compare.plan import (
    Entry,
    PlannedRun,
    Setting,
    calibration,
    composed,
    epochs_of_budget,
    epochs_of_minutes,
    plan_run,
)
from uic_plugin.experiments.compare.records import collect, curve_rows, summarize, summary_table
from uic_plugin.experiments.jobs import Job, reason_of, run_jobs
from uic_plugin.pseudo_labels.kmeans import check_faiss
from uic_plugin.report.tables import write_csv


def compare(
    setting: Setting,
    entries: Sequence[Entry],
    seeds: Sequence[int],
    *,
    out: Path | None = None,
    console: Console,
    dry_run: bool = False,
) -> bool:
    """Run the missing runs of a comparison and write its tables, curves and page.

    It writes `runs.csv`, `curves.csv`, `summary.csv`, `index.html` and `curves.png`. A run that
    fails does not stop the others and is shown as failed, with its reason.

    Args:
        setting: what all runs share.
        entries: lines of the comparison.
        seeds: of every line.
        out: folder of the results; by default one for this comparison, beside its runs.
        console: for the progress and the table.
        dry_run: print every command, run nothing.

    Returns:
        Whether everything was done.

    Raises:
        FileNotFoundError: for missing data.
        ImportError: without faiss.
        ValueError: for an impossible recipe, layer or dataset.
        Interrupted: if the user stopped it.
    """
    if len(set(seeds)) < len(seeds) or not seeds:
        raise ValueError(f"--seeds must be different numbers, got {list(seeds)}")
    _check(setting, entries, seeds[0])
    calibrations: dict[str, Job] = {}
    if setting.budget.kind == "minutes":
        calibrations = {e.label: calibration(setting, e) for e in entries if e.method != "random"}
    if dry_run:
        _print_commands(setting, entries, seeds, calibrations, console)
        return True
    early = _calibrate(calibrations, setting.parallel, console)
    runs = [
        run
        for entry in entries
        if entry.label not in early
        for run in _runs(setting, entry, seeds, console)
    ]
    commands = list({job.name: job for run in runs for job in run.jobs}.values())
    todo = [job for job in commands if not job.is_done()]
    console.print(
        f"{len(entries)} methods, {len(seeds)} seeds, {setting.budget} each: {len(commands)} "
        f"commands, {len(commands) - len(todo)} of them done already"
    )
    failed = _run(todo, setting.parallel, console)
    rows = collect(runs, setting, failed, early)
    _write(out or setting.folder / f"comparison-{_digest(runs)}", setting, runs, rows, console)
    return not any(row["failed"] for row in rows)


def _calibrate(jobs: dict[str, Job], parallel: int, console: Console) -> dict[str, str]:
    """Run the missing calibrations; return why those failed that did, by label."""
    failed = _run([job for job in jobs.values() if not job.is_done()], parallel, console)
    return {
        label: f"calibration: {failed[job.name]}"
        for label, job in jobs.items()
        if job.name in failed
    }


def _check(setting: Setting, entries: Sequence[Entry], seed: int) -> None:
    """Refuse early what would otherwise fail after hours of training."""
    from uic_plugin.networks.layers import layer_shapes
    from uic_plugin.runs.run import Run

    check_faiss()
    for entry in entries:
        composed(setting, entry, seed)
    run = Run.of_recipe(composed(setting, entries[0], seed)[2], setting.folder)
    source = run.source
    if not source.labelled or source.val is None:
        raise ValueError(
            f"--data {setting.data}: a comparison is measured on annotated images: train/ and "
            f"val/ with one subfolder per class in both"
        )
    if setting.layers:
        size = run.config.augmentations[0].crop_size
        layer_shapes(run.encoder, list(setting.layers), size)


def _print_commands(
    setting: Setting,
    entries: Sequence[Entry],
    seeds: Sequence[int],
    calibrations: dict[str, Job],
    console: Console,
) -> None:
    for job in calibrations.values():
        console.print(job.command)
    if calibrations:
        console.print("these say how many epochs fit into the minutes; the runs then follow")
        return
    for entry in entries:
        for run in _runs(setting, entry, seeds, console):
            for job in run.jobs:
                console.print(job.command)


def _write(
    out: Path,
    setting: Setting,
    runs: Sequence[PlannedRun],
    rows: list[dict[str, Any]],
    console: Console,
) -> None:
    """Write tables, curves and page into a folder, and print failures and paths."""
    write_csv(out / "runs.csv", rows)
    curves = curve_rows(runs)
    for name in ("curves.csv", "curves.png"):  # of an earlier call
        (out / name).unlink(missing_ok=True)
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


def _digest(runs: Sequence[PlannedRun]) -> str:
    """Return a hash of a comparison: another one writes elsewhere."""
    names = "\0".join(f"{run.entry.label} {run.folder.name}" for run in runs)
    return hashlib.blake2b(names.encode(), digest_size=4).hexdigest()


def _runs(
    setting: Setting, entry: Entry, seeds: Sequence[int], console: Console
) -> list[PlannedRun]:
    if entry.method == "random":
        epochs: int | None = 1
    else:
        epochs = epochs_of_budget(setting, entry, seeds[0], console.print)
    if epochs is None:
        epochs = epochs_of_minutes(setting, entry)
    return [plan_run(setting, entry, seed, epochs) for seed in seeds]


def _run(jobs: list[Job], parallel: int, console: Console) -> dict[str, str]:
    """Run jobs; return names and reasons of those that failed."""
    return {
        name: reason_of(log) if log.exists() else "not started"
        for name, log in run_jobs(jobs, parallel, console.print).items()
    }
