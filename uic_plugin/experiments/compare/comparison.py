"""`uic compare`: run and measure the missing runs, write table, CSV and page."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from uic_plugin.experiments.compare.lengths import calibration
from uic_plugin.experiments.compare.page import write_page
from uic_plugin.experiments.compare.plan import (
    Entry,
    PlannedRun,
    Setting,
    composed,
    is_trained,
    repetition,
)
from uic_plugin.experiments.compare.records import (
    OFF,
    collect,
    curve_rows,
    epoch_rows,
    steadiness,
    summarize,
    summary_table,
    trial_rows,
)
from uic_plugin.experiments.compare.stages import (
    Tuned,
    plan_reported,
    plan_trials,
    run_missing,
    tune,
)
from uic_plugin.experiments.compare.tune import tuning_seed
from uic_plugin.pseudo_labels.kmeans import check_faiss
from uic_plugin.report.tables import read_csv, write_csv


def compare(
    setting: Setting,
    entries: Sequence[Entry],
    seeds: Sequence[int],
    *,
    trials: int = 0,
    out: Path | None = None,
    console: Console,
    dry_run: bool = False,
) -> bool:
    """Run the missing runs of a comparison and write its tables, curves and page.

    It writes `runs.csv`, `curves.csv`, `epochs.csv`, `summary.csv`, `index.html` and `curves.png`;
    `trials.csv` of a tuned comparison, and `steadiness.csv` for a budget of minutes. A run that
    fails does not stop the others and is shown as failed, with its reason.

    Args:
        setting: what all runs share.
        entries: lines of the comparison.
        seeds: of every line.
        trials: settings of every line that are tried beforehand; 0 for none.
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
    if trials:
        plan_trials(setting, entries, trials, seeds)  # too small a grid is said at once
    if dry_run:
        _print_commands(setting, entries, seeds, trials, console)
        return True
    tuned = tune(setting, entries, trials, seeds, console) if trials else Tuned()
    chosen = [
        tuned.best[entry.label].entry if entry.label in tuned.best else entry
        for entry in entries
        if entry.label not in tuned.failed
    ]
    runs, early = plan_reported(setting, chosen, seeds, console)
    early.update(tuned.failed)
    title = f"{_number(entries, 'method')}, {_number(seeds, 'seed')}, {setting.budget} each: "
    failed = run_missing(setting, [job for run in runs for job in run.jobs], console, title)
    rows = collect(runs, setting, failed, early)
    folder = out or setting.folder / f"comparison-{_digest(runs)}"
    if setting.budget.kind == "minutes":
        _repeat(folder, setting, runs, console)
    if trials:
        write_csv(folder / "trials.csv", trial_rows(tuned))
    _write(folder, setting, runs, rows, tuned, console)
    return not any(row["failed"] for row in rows)


def _repeat(out: Path, setting: Setting, runs: Sequence[PlannedRun], console: Console) -> None:
    """Train the first run once more and write how much faster or slower it was."""
    first = next((r for r in runs if is_trained(r.entry) and r.jobs[0].is_done()), None)
    if first is None:
        return
    again = repetition(first, _digest(runs))
    if run_missing(setting, [again], console, "the first run once more: "):
        return
    row = steadiness(first, again.folder)
    write_csv(out / "steadiness.csv", [row])
    console.print(
        f"{row['run']}: {row['views_per_second_first']:,.0f} views a second at first, "
        f"{row['views_per_second_again']:,.0f} at the end "
        f"({100 * (row['views_per_second_ratio'] - 1):+.1f} %)"
    )


def _check(setting: Setting, entries: Sequence[Entry], seed: int) -> None:
    """Refuse early what would otherwise fail after hours of training."""
    from uic_plugin.networks.layers import layer_shapes
    from uic_plugin.runs.run import Run

    check_faiss()
    for entry in entries:
        composed(setting, entry, seed)
    run = Run.of_recipe(composed(setting, entries[0], seed)[2], setting.folder)
    source = run.source
    if not source.labelled or (source.val is None and not setting.held_out):
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
    trials: int,
    console: Console,
) -> None:
    """Print the commands of the first stage, and of the others where they are known already."""
    few, tried = plan_trials(setting, entries, trials, seeds) if trials else (setting, [])
    first = [trial.entry for trial in tried] or list(entries)
    if setting.budget.kind == "minutes":
        for entry in filter(is_trained, first):
            console.print(calibration(few, entry).command)
        console.print("these say how many epochs fit into the minutes; the runs then follow")
        return
    numbers = [tuning_seed(seeds)] if trials else seeds
    for run in plan_reported(few, first, numbers, console)[0]:
        for job in run.jobs:
            console.print(job.command)
    if trials:
        console.print("the best setting of each method then runs with the seeds")


def _write(
    out: Path,
    setting: Setting,
    runs: Sequence[PlannedRun],
    rows: list[dict[str, Any]],
    tuned: Tuned,
    console: Console,
) -> None:
    """Write tables, curves and page into a folder, and print failures and paths."""
    write_csv(out / "runs.csv", rows)
    curves, epochs = curve_rows(runs), epoch_rows(runs)
    for name in ("curves.csv", "curves.png", "epochs.csv"):  # of an earlier call
        (out / name).unlink(missing_ok=True)
    if curves:
        write_csv(out / "curves.csv", curves)
        write_csv(out / "epochs.csv", epochs)
    summary = summarize(rows)
    write_csv(out / "summary.csv", summary)
    steady = out / "steadiness.csv"
    page = write_page(
        out / "index.html",
        setting,
        summary,
        rows,
        curves=curves,
        epochs=epochs,
        trials=trial_rows(tuned),
        steady=read_csv(steady) if steady.exists() else [],
    )
    console.print(summary_table(setting, summary))
    for row in rows:
        if row["failed"]:
            console.print(f"failed: {row['label']}, seed {row['seed']}: {row['failed']}")
        elif abs(float(row.get("budget_used") or 1) - 1) > OFF:
            console.print(
                f"{row['label']}, seed {row['seed']}: took {100 * row['budget_used']:.0f} % of its "
                f"{setting.budget}"
            )
    console.print(f"{out / 'runs.csv'} has every run, {page} the curves")


def _number(things: Sequence[object], name: str) -> str:
    return f"{len(things)} {name}{'s' * (len(things) != 1)}"


def _digest(runs: Sequence[PlannedRun]) -> str:
    """Return a hash of a comparison: another one writes elsewhere."""
    names = "\0".join(f"{run.entry.label} {run.folder.name}" for run in runs)
    return hashlib.blake2b(names.encode(), digest_size=4).hexdigest()
