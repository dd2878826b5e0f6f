"""Runs a table's jobs: what is done is skipped, a failure stops what needs it and nothing else."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

from rich.console import Console

from uic_plugin.errors import Interrupted
from uic_plugin.files import replacing
from uic_plugin.paper.jobs import Job, plan
from uic_plugin.paper.results import collect, hardware, merged, paper_table
from uic_plugin.paper.tables import TABLES
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
    console: Console,
    dry_run: bool = False,
) -> bool:
    """Run what a table lacks, write `OUT/NAME.csv`, print the table.

    Args:
        name: of `TABLES`.
        scale: "small" or "full".
        seeds: of every row.
        root: folder of the runs; all tables share it.
        out: folder of the CSV file.
        parallel: commands at the same time, each with its part of the cores.
        overrides: Hydra overrides of every training.
        console: where the progress and the table go.
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
    jobs = plan(table, scale, seeds, root, overrides)
    for job in jobs:
        if job.recipe:
            compose_recipe(job.recipe, list(job.overrides))
    if dry_run:
        for job in jobs:
            console.print(job.command)
            takes = _header(job.recipe, "Hardware") if job.recipe else job.takes
            console.print(f"    {takes}")
        console.print(f"{len(jobs)} commands; those of one row in this order")
        return True
    todo = [job for job in jobs if not job.is_done()]
    console.print(f"{name}: {len(jobs)} commands, {len(jobs) - len(todo)} of them done already")
    failed = _run_all(todo, parallel, console.print)
    records = collect(table, scale, seeds, root)
    write_csv(out / f"{name}.csv", merged(out / f"{name}.csv", records, scale))
    console.print(paper_table(table, records, scale))
    if table.note:
        console.print(table.note)
    console.print(
        f"measured here: top-1 in percent, probe of the last epoch, 10 crops; mean ± standard "
        f"deviation over the seeds that {out / f'{name}.csv'} names"
    )
    for failure, log in failed.items():
        console.print(f"failed: {failure} (see {log})")
    return not failed


def _run_all(jobs: list[Job], parallel: int, say: Callable[[str], None]) -> dict[str, Path]:
    """Run jobs as soon as what they need is done; names and logs of those that failed."""
    waiting = {job.name: job for job in jobs}
    failed: dict[str, Path] = {}
    running: dict[Future[Any], Job] = {}
    processes: dict[str, subprocess.Popen[bytes]] = {}
    cores = max(1, (os.cpu_count() or 1) // parallel)
    finished = 0
    with ThreadPoolExecutor(parallel) as pool, _terminated_like_interrupted():
        try:
            while waiting or running:
                for job in list(waiting.values()):
                    if any(need in failed for need in job.needs):
                        failed[job.name] = failed[next(n for n in job.needs if n in failed)]
                        del waiting[job.name]
                    elif len(running) < parallel and not any(
                        need in waiting or need in {other.name for other in running.values()}
                        for need in job.needs
                    ):
                        del waiting[job.name]
                        running[pool.submit(_run, job, cores, processes)] = job
                if not running:
                    continue
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    job = running.pop(future)
                    finished += 1
                    code, seconds = future.result()
                    if code:
                        failed[job.name] = job.log
                    say(
                        f"[{finished}/{len(jobs)}] {job.name}: "
                        f"{f'failed with exit code {code}' if code else f'{seconds:.0f} s'}"
                    )
        except BaseException as stop:
            waiting.clear()
            for process in list(processes.values()):
                process.terminate()
            if isinstance(stop, KeyboardInterrupt):
                raise Interrupted("stopped; the same command goes on with what is left") from None
            raise
    return failed


def _run(job: Job, cores: int, processes: dict[str, subprocess.Popen[bytes]]) -> tuple[int, float]:
    """One command with its output in a log; its exit code and seconds."""
    started = time.perf_counter()
    log = job.log
    log.parent.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "OMP_NUM_THREADS": str(cores)}
    with open(log, "ab") as file:
        try:  # the command inherits the lock: it lasts as long as the command, whoever started it
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(
                f"another process is at work on '{job.name}' in {job.folder}: wait for it, or stop "
                f"it and give the same command again"
            ) from None
        file.write(f"$ {job.command}\n".encode())
        file.flush()
        process = subprocess.Popen(
            [sys.executable, "-m", "uic_plugin.cli", *job.arguments],
            stdout=file,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env=environment,
        )
        processes[job.name] = process
        try:
            code = process.wait()
        finally:
            del processes[job.name]
    seconds = time.perf_counter() - started
    if code == 0:
        record = {"command": job.command, "hardware": hardware(), "seconds": round(seconds)}
        record["date"] = date.today().isoformat()
        with replacing(job.record) as part:
            part.write_text(json.dumps(record) + "\n")
    return code, seconds


@contextmanager
def _terminated_like_interrupted() -> Iterator[None]:
    """Let SIGTERM, as schedulers send it, stop the commands too."""

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    kept = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, kept)


def _header(recipe: str, word: str) -> str:
    """A line of a recipe's header."""
    for line in (recipes_dir() / f"{recipe}.yaml").read_text().splitlines():
        if line.startswith(f"# {word}:"):
            return line.partition(":")[2].strip()
    return ""
