"""`uic compare`: methods side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from uic_plugin.cli.common import Overrides, terminal

DEFAULT_METHODS = "uic,deepcluster,selflabel,simclr,mocov2plus,supervised,random"


def compare(
    overrides: Overrides = None,
    data: Annotated[str, typer.Option(help="cifar10, digits, imagenette, or a folder.")] = "digits",
    network: Annotated[str, typer.Option(help="small, or a backbone.name.")] = "small",
    methods: Annotated[str, typer.Option(help="Names, with commas.")] = DEFAULT_METHODS,
    variants: Annotated[
        Path | None, typer.Option(help="YAML: label to method and overrides; further lines.")
    ] = None,
    budget: Annotated[str, typer.Option(help="epochs=20, views=200k or minutes=10.")] = "epochs=20",
    tune: Annotated[
        int, typer.Option(help="Settings of every method that are tried first; 0: none.")
    ] = 0,
    held_out: Annotated[
        float, typer.Option(help="Share of the training images that judges, not the test images.")
    ] = 0.0,
    seeds: Annotated[str, typer.Option(help="Numbers, with commas.")] = "0",
    layers: Annotated[str, typer.Option("--layers", "-l", help="Probe these layers, too.")] = "",
    clusters: Annotated[int, typer.Option(help="Of k-means on the features, for NMI.")] = 100,
    jobs: Annotated[int, typer.Option(help="Commands at the same time.")] = 1,
    runs: Annotated[Path, typer.Option(help="Folder of the runs, shared.")] = Path("runs/compare"),
    out: Annotated[
        Path | None, typer.Option(help="Folder of the results; by default beside the runs.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the commands.")] = False,
    quoted: Annotated[
        bool, typer.Option("--quoted", help="Print the figures that papers quote; run nothing.")
    ] = False,
) -> None:
    """Methods side by side: same images, network, augmentation and budget; one table, one plot."""
    if quoted:
        return _print_quoted()
    from uic_plugin.experiments.compare.budget import Budget
    from uic_plugin.experiments.compare.comparison import compare as run
    from uic_plugin.experiments.compare.plan import Setting, entries_of

    if tune < 0 or tune == 1:
        raise ValueError(f"--tune must be 0, or at least 2 settings, got {tune}")
    length = Budget.parse(budget)
    setting = Setting(
        data,
        network,
        length,
        runs,
        overrides=tuple(overrides or ()),
        clusters=clusters,
        layers=tuple(name for name in layers.split(",") if name),
        parallel=jobs,
        held_out=held_out,
        by_step=bool(tune) or length.kind == "minutes",
    )
    complete = run(
        setting,
        entries_of([name.strip() for name in methods.split(",") if name.strip()], variants),
        _numbers(seeds),
        trials=tune,
        out=out,
        console=terminal(),
        dry_run=dry_run,
    )
    raise typer.Exit(0 if complete else 1)


def _print_quoted() -> None:
    from uic_plugin.experiments.compare.quoted import quoted_tables

    for table in quoted_tables():
        terminal().print(table)


def _numbers(seeds: str) -> list[int]:
    parts = [part.strip() for part in seeds.split(",")]
    if not all(part.isdigit() for part in parts):
        raise ValueError(f"--seeds must be whole numbers with commas, got {seeds!r}")
    return [int(part) for part in parts]
