"""`uic transfer`: all transfer tasks of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from uic_plugin.cli.common import RunPath, terminal


def transfer(
    run: RunPath,
    tasks: Annotated[
        str, typer.Option(help="Of fewshot, voc-classify, voc-detect, voc-segment; with commas.")
    ] = "fewshot,voc-classify,voc-detect,voc-segment",
    out: Annotated[Path | None, typer.Option(help="Folder; 'transfer' in the run folder.")] = None,
    fewshot_data: Annotated[
        Path, typer.Option(help="Held-out classes: class folders, or a split's .csv.")
    ] = Path("datasets/miniimagenet/test.csv"),
    voc: Annotated[Path, typer.Option(help="Folder with VOCdevkit.")] = Path("datasets"),
    scale: Annotated[
        str, typer.Option(help="full: the protocols; small: few iterations on small images.")
    ] = "full",
    option: Annotated[
        list[str] | None, typer.Option(help="Of a task, as voc-detect.iterations=100; repeated.")
    ] = None,
    beside_untrained: Annotated[
        bool, typer.Option("--beside-untrained", help="Also the network with random weights.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Of the tasks.")] = 0,
    jobs: Annotated[int, typer.Option(help="Commands at the same time.")] = 1,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the commands.")] = False,
) -> None:
    """All transfer tasks of a run's network: one table and one page; resumes where it stopped."""
    from uic_plugin.experiments.transfer.task_runs import transfer as run_transfer
    from uic_plugin.experiments.transfer.tasks import TransferPlan
    from uic_plugin.runs.folder import read_run

    given: dict[str, list[str]] = {}
    for text in option or []:
        key, separator, value = text.partition("=")
        task, point, name = key.partition(".")
        if not separator or not point:
            raise ValueError(f"--option {text!r}: write TASK.NAME=VALUE")
        given.setdefault(task, []).append(f"--{name.replace('_', '-')}={value}")
    names = [task.strip() for task in tasks.split(",") if task.strip()]
    checkpoint = read_run(run)[1]
    complete = run_transfer(
        run,
        names,
        TransferPlan(scale, fewshot_data, voc, seed, given),
        out=out or checkpoint.parent / "transfer",
        beside_untrained=beside_untrained,
        parallel=jobs,
        console=terminal(),
        dry_run=dry_run,
    )
    raise typer.Exit(0 if complete else 1)
