"""`uic fewshot` and `uic transfer`: what a run's network is worth on other tasks."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from uic_plugin.cli.common import Run, Set, Untrained, terminal

RESULTS_FILE = "fewshot.csv"


def fewshot(
    run: Run,
    data: Annotated[Path, typer.Argument(help="Folder of class folders, or a split's .csv.")],
    layers: Annotated[
        list[str] | None, typer.Option("--layers", "-l", help="As conv3 conv4 conv5 conv5+mp.")
    ] = None,
    ways: Annotated[int, typer.Option(help="Classes of an episode.")] = 5,
    shots: Annotated[int, typer.Option(help="Labelled images of each.")] = 5,
    queries: Annotated[int, typer.Option(help="Images of each to classify.")] = 15,
    episodes: Annotated[int, typer.Option(help="How many.")] = 600,
    resolution: Annotated[int, typer.Option(help="Center crop in pixels.")] = 224,
    resize: Annotated[
        int | None, typer.Option(help="Shorter side before the crop; 256 for 224.")
    ] = None,
    distance: Annotated[str, typer.Option(help="euclidean or cosine.")] = "euclidean",
    seed: Annotated[int, typer.Option(help="Of the episodes.")] = 0,
    out: Annotated[Path | None, typer.Option(help="CSV file; in the run folder.")] = None,
    untrained: Untrained = False,
    set_: Set = None,
) -> None:
    """Classes never seen, from a few images of each: nearest class mean on frozen features."""
    from uic_plugin.evaluation.fewshot import EpisodeSettings
    from uic_plugin.report.progress import counting
    from uic_plugin.report.tables import write_csv
    from uic_plugin.runs.evaluation import load_method
    from uic_plugin.runs.fewshot import fewshot_run
    from uic_plugin.runs.folder import open_run
    from uic_plugin.runs.probing import default_layers

    settings = EpisodeSettings(ways, shots, queries, episodes, distance, seed)
    cfg, checkpoint = open_run(run, set_ or [])
    method, cfg, source = load_method(cfg, None if untrained else checkpoint, needs_images=False)
    names = [name for part in layers or [] for name in part.split(",")] or default_layers(method)
    with counting("images", terminal()) as progress:
        rows = fewshot_run(
            method,
            cfg,
            source,
            data,
            names,
            settings,
            resolution=resolution,
            resize=resize,
            progress=progress,
        )
    said = {**dataclasses.asdict(settings), "resolution": resolution}
    name = f"untrained-{RESULTS_FILE}" if untrained else RESULTS_FILE
    file = out or checkpoint.parent / name
    write_csv(file, [{**row, **said} for row in rows])
    table = Table("layer", "dimensions", f"{ways}-way {shots}-shot accuracy, %")
    for row in rows:
        accuracy = f"{row['accuracy']:.2f} ± {row['interval']:.2f}"
        table.add_row(row["layer"], str(row["dimensions"]), accuracy)
    terminal().print(table)
    terminal().print(f"mean over {episodes} episodes and its 95 % interval; {file}")


def transfer(
    run: Run,
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
    """All transfer tasks of a run's network: one table and one page; goes on where it stopped."""
    from uic_plugin.experiments.transfer.task_runs import transfer as run_transfer
    from uic_plugin.experiments.transfer.tasks import TransferPlan
    from uic_plugin.runs.folder import load_run

    given: dict[str, list[str]] = {}
    for text in option or []:
        key, separator, value = text.partition("=")
        task, point, name = key.partition(".")
        if not separator or not point:
            raise ValueError(f"--option {text!r}: write TASK.NAME=VALUE")
        given.setdefault(task, []).append(f"--{name.replace('_', '-')}={value}")
    names = [task.strip() for task in tasks.split(",") if task.strip()]
    checkpoint = load_run(run)[1]
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
