"""`uic transfer`: run the missing tasks, write one table and one page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from uic_plugin.experiments.jobs import run_missing
from uic_plugin.experiments.transfer.page import write_page
from uic_plugin.experiments.transfer.scores import transfer_rows
from uic_plugin.experiments.transfer.tasks import FEWSHOT, TransferPlan, check_tasks
from uic_plugin.report.tables import write_csv
from uic_plugin.runs.folder import read_run


def transfer(
    run: Path,
    tasks: Sequence[str],
    plan: TransferPlan,
    *,
    out: Path,
    beside_untrained: bool,
    parallel: int,
    console: Console,
    dry_run: bool = False,
) -> bool:
    """Run the missing ones of some tasks; write `transfer.csv` and `index.html` into `out`.

    A task that fails does not stop the others and is shown as failed, with its reason.

    Args:
        run: a run folder or a checkpoint.
        tasks: from `TASKS`.
        plan: what their commands share.
        out: folder of all results.
        beside_untrained: also run the same network with random weights.
        parallel: number of parallel commands, each with its share of the cores.
        console: for progress and table.
        dry_run: print every command, run nothing.

    Returns:
        Whether everything was done.

    Raises:
        FileNotFoundError: if there is no such run, or the images of a task are not there.
        ValueError: for an unknown task or number.
        Interrupted: if the user stopped it.
    """
    check_tasks(tasks)
    if parallel < 1:
        raise ValueError(f"--jobs must be at least 1, got {parallel}")
    backbone = str(read_run(run)[0].backbone.name)
    jobs = plan.jobs(tasks, run, backbone, out)
    if beside_untrained:
        jobs += plan.jobs(tasks, run, backbone, out, untrained=True)
    if dry_run:
        for job in jobs:
            console.print(job.command)
            console.print(f"    {job.takes}")
        return True
    for data in {plan.fewshot if task == FEWSHOT else plan.voc for task in tasks}:
        if not data.exists():
            raise FileNotFoundError(
                f"{data}: there are no images; --fewshot-data and --voc say where they are"
            )
    rows = transfer_rows(jobs, run_missing(jobs, parallel, console))
    write_csv(out / "transfer.csv", rows)
    note = f"Images: {' and '.join(sorted({str(job.arguments[2]) for job in jobs}))}."
    if plan.scale == "small" and any(job.arguments[0] != FEWSHOT for job in jobs):
        note += " Small scale: no figure here is a result on PASCAL VOC."
    page = write_page(out / "index.html", run, rows, jobs, note)
    console.print(_table(rows))
    console.print(note)
    console.print(f"{out / 'transfer.csv'} has every figure and command, {page} the pictures")
    return not any(row["failed"] for row in rows)


def _table(rows: Sequence[Mapping[str, str]]) -> Table:
    table = Table("task", "network", "figure", "percent")
    for row in rows:
        value = f"{row.get('percent')}{f' ± {i}' if (i := row.get('interval_95')) else ''}"
        cells = ("failed", row["failed"]) if row["failed"] else (row["figure"], value)
        table.add_row(row["task"], row["network"], *cells)
    return table
