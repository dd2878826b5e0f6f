"""Commands of `uic` as jobs: each runs once, and a failure stops only the jobs that need it."""

from __future__ import annotations

import fcntl
import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from rich.console import Console

from uic_plugin.errors import Interrupted
from uic_plugin.files import replacing
from uic_plugin.hardware import hardware


@dataclass(frozen=True)
class Job:
    """One command.

    Attributes:
        name: unique; its first word names the log.
        arguments: of `uic`.
        folder: its run folder, with the log.
        product: file that exists when it is done.
        needs: names of the jobs that must be done before.
        recipe: recipe that it trains; None for other commands.
        overrides: of that recipe.
        takes: estimated duration; empty for trainings, whose recipe's header states it.
        identity: equal for jobs that count as the same; by default their commands are compared.
    """

    name: str
    arguments: tuple[str, ...]
    folder: Path
    product: Path
    needs: tuple[str, ...] = ()
    recipe: str | None = None
    overrides: tuple[str, ...] = ()
    takes: str = ""
    identity: str = ""

    @property
    def command(self) -> str:
        """The command as one would type it."""
        return shlex.join(("uic", *self.arguments))

    @property
    def log(self) -> Path:
        """The file that the command's output is written to."""
        return self.folder / f"{self.name.split()[0]}.log"

    @property
    def record(self) -> Path:
        """The file written on success: command, hardware, date."""
        return self.folder / f"{self.name.split()[0]}.done.json"

    def is_done(self) -> bool:
        """Return whether this very job has ended well and what it made is still there."""
        if not self.product.exists() or not self.record.exists():
            return False
        record = json.loads(self.record.read_text())
        if self.identity:
            return bool(record.get("identity") == self.identity)
        return bool(record["command"] == self.command)


def run_jobs(
    jobs: list[Job], parallel: int, say: Callable[[str], None], *, one_core: bool = False
) -> dict[str, Path]:
    """Run jobs as soon as the jobs that they need are done.

    Args:
        jobs: in order, prerequisites first.
        parallel: number of parallel commands. Each gets its share of the cores as OMP_NUM_THREADS,
            unless the user has set that.
        say: called with a message when a job has ended.
        one_core: give each command one thread, on a core of its own where the system allows, so
            that commands do not disturb each other.

    Returns:
        Names and logs of jobs that failed, or that need a failed one.

    Raises:
        ValueError: if another process is running one of them.
        Interrupted: if the user stopped it.
    """
    waiting = {job.name: job for job in jobs}
    failed: dict[str, Path] = {}
    running: dict[Future[tuple[int, float]], Job] = {}
    processes: dict[str, subprocess.Popen[bytes]] = {}
    cores = 0 if one_core else max(1, (os.cpu_count() or 1) // parallel)
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
                raise Interrupted("stopped; the same command resumes with what is left") from None
            raise
    return failed


def run_missing(
    jobs: Sequence[Job], parallel: int, console: Console, title: str = ""
) -> dict[str, Path]:
    """Run those of some jobs that are not done yet; see `run_jobs`."""
    todo = [job for job in jobs if not job.is_done()]
    done = len(jobs) - len(todo)
    console.print(f"{title}{len(jobs)} commands, {done} of them done already")
    return run_jobs(todo, parallel, console.print)


def _run(job: Job, cores: int, processes: dict[str, subprocess.Popen[bytes]]) -> tuple[int, float]:
    """Run one command with its output in a log; return its exit code and seconds.

    Args:
        job: the command.
        cores: its number of threads, unless the user has set that; 0 for one thread and a core of
            its own.
        processes: gets the command while it runs.
    """
    started = time.perf_counter()
    log = job.log
    log.parent.mkdir(parents=True, exist_ok=True)
    environment = {"OMP_NUM_THREADS": str(cores), **os.environ}  # the user's choice counts
    if not cores:
        environment["OMP_NUM_THREADS"] = "1"
    with open(log, "ab") as file, own_core() if not cores else nullcontext() as core:
        try:  # the command inherits the lock and holds it to its end, even without this process
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
        if core is not None:
            os.sched_setaffinity(process.pid, {core})
        processes[job.name] = process
        try:
            code = process.wait()
        finally:
            del processes[job.name]
        if code < 0:
            file.write(f"error: ended by {signal.Signals(-code).name}\n".encode())
    seconds = time.perf_counter() - started
    if code == 0:
        record = {"command": job.command, "hardware": hardware(), "seconds": round(seconds)}
        record.update(date=date.today().isoformat(), identity=job.identity)
        with replacing(job.record) as part:
            part.write_text(json.dumps(record) + "\n")
    return code, seconds


@contextmanager
def own_core() -> Iterator[int | None]:
    """Lend one of this process's cores that no other user of this function has, while it lasts.

    Yields:
        Its number; None if all are lent, or if the system cannot bind a process to a core.
    """
    if not hasattr(os, "sched_setaffinity"):  # macOS
        yield None
        return
    folder = Path(tempfile.gettempdir())
    for core in sorted(os.sched_getaffinity(0)):
        try:
            file = os.open(folder / f"uic-core-{core}.lock", os.O_RDWR | os.O_CREAT, 0o666)
        except OSError:  # another user's
            continue
        try:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            yield core
            return
        finally:
            os.close(file)
    yield None


@contextmanager
def _terminated_like_interrupted() -> Iterator[None]:
    """Let SIGTERM, which schedulers send, stop the commands too."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    kept = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, kept)


def reason_of(log: Path) -> str:
    """Return the last line that a command's last call printed, its reason if it failed."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines()]
    calls = [number for number, line in enumerate(lines) if line.startswith("$ ")]
    said = [line for line in lines[calls[-1] + 1 if calls else 0 :] if line]
    errors = [line for line in said if line.startswith("error: ")]
    return (errors or said or ["no output"])[-1]
