"""`uic fewshot`: classes never seen, from a few images of each."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from uic_plugin.cli.common import (
    Layers,
    RunPath,
    Set,
    Stores,
    Untrained,
    names_of,
    terminal,
)
from uic_plugin.cli.options import options_of
from uic_plugin.evaluation.episode_settings import EpisodeSettings

RESULTS_FILE = "fewshot.csv"


@options_of(EpisodeSettings)
def fewshot(
    run: RunPath,
    data: Annotated[Path, typer.Argument(help="Folder of class folders, or a split's .csv.")],
    layers: Layers = None,
    resolution: Annotated[
        int | None, typer.Option(help="Center crop in pixels; 224 by default.")
    ] = None,
    resize: Annotated[
        int | None, typer.Option(help="Shorter side before the crop; 256 for 224.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="CSV file; in the run folder.")] = None,
    untrained: Untrained = False,
    features: Stores = None,
    set_: Set = None,
    *,
    settings: EpisodeSettings,
) -> None:
    """Classes never seen, from a few images of each: nearest class mean on frozen features."""
    from uic_plugin.report.progress import counting
    from uic_plugin.report.tables import write_csv
    from uic_plugin.runs.fewshot import fewshot_run
    from uic_plugin.runs.probing import default_layers
    from uic_plugin.runs.run import Run

    opened = Run.open(run, set_ or [], untrained=untrained)
    names = names_of(layers) or ([] if features else default_layers(opened))
    with counting("images", terminal()) as progress:
        rows = fewshot_run(
            opened,
            data,
            names,
            settings,
            resolution=resolution,
            resize=resize,
            stores=features or [],
            progress=progress,
        )
    said = {**dataclasses.asdict(settings), "resolution": resolution or ("" if features else 224)}
    file = out or opened.folder / (f"untrained-{RESULTS_FILE}" if untrained else RESULTS_FILE)
    write_csv(file, [{**row, **said} for row in rows])
    table = Table("layer", "dimensions", f"{settings.ways}-way {settings.shots}-shot accuracy, %")
    for row in rows:
        accuracy = f"{row['accuracy']:.2f} ± {row['interval']:.2f}"
        table.add_row(row["layer"], str(row["dimensions"]), accuracy)
    terminal().print(table)
    terminal().print(f"mean over {settings.episodes} episodes and its 95 % interval; {file}")
