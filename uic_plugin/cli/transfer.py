"""`uic fewshot`: what a run's network is worth on other tasks."""

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
    resolution: Annotated[int, typer.Option(help="Centre crop in pixels.")] = 224,
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
    from uic_plugin.hosts.evaluation import load_method
    from uic_plugin.hosts.fewshot import fewshot_run
    from uic_plugin.hosts.probing import default_layers
    from uic_plugin.hosts.runs import open_run
    from uic_plugin.report.progress import counting
    from uic_plugin.report.tables import write_csv

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
