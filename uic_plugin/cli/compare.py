"""`uic compare`, `uic measure` and `uic costs`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from uic_plugin.cli.common import Overrides, Run, Set, terminal

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
    seeds: Annotated[str, typer.Option(help="Numbers, with commas.")] = "0",
    layers: Annotated[str, typer.Option("--layers", "-l", help="Probe these layers, too.")] = "",
    clusters: Annotated[int, typer.Option(help="Of k-means on the features, for NMI.")] = 100,
    jobs: Annotated[int, typer.Option(help="Commands at the same time.")] = 1,
    runs: Annotated[Path, typer.Option(help="Folder of the runs, shared.")] = Path("runs/compare"),
    out: Annotated[
        Path | None, typer.Option(help="Folder of the results; beside the runs unless told.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the commands.")] = False,
    quoted: Annotated[
        bool, typer.Option("--quoted", help="Print the figures that papers quote; run nothing.")
    ] = False,
) -> None:
    """Methods side by side: same images, network, augmentation and budget; one table, one plot."""
    if quoted:
        from uic_plugin.experiments.compare.quoted import quoted_tables

        for table in quoted_tables():
            terminal().print(table)
        return
    from uic_plugin.experiments.compare.comparison import compare as run
    from uic_plugin.experiments.compare.plan import Budget, Setting, entries_of

    numbers = [part.strip() for part in seeds.split(",")]
    if not all(part.isdigit() for part in numbers):
        raise ValueError(f"--seeds must be whole numbers with commas, got {seeds!r}")
    setting = Setting(
        data,
        network,
        Budget.parse(budget),
        runs,
        overrides=tuple(overrides or ()),
        clusters=clusters,
        layers=tuple(name for name in layers.split(",") if name),
        parallel=jobs,
    )
    names = [name.strip() for name in methods.split(",") if name.strip()]
    complete = run(
        setting,
        entries_of(names, variants),
        [int(part) for part in numbers],
        out=out,
        console=terminal(),
        dry_run=dry_run,
    )
    raise typer.Exit(0 if complete else 1)


def measure(
    run: Run,
    clusters: Annotated[int, typer.Option(help="Of k-means on the features, for NMI.")] = 100,
    overrides: Set = None,
) -> None:
    """k-NN, linear, NMI, cost and curve of a finished run, as `uic compare` takes them."""
    from uic_plugin.experiments.compare.measure import MEASURES_FILE, measure_run

    measures = measure_run(run, clusters=clusters, overrides=tuple(overrides or ()))
    own = f", of its own labels {measures['nmi']:.3f}" if measures["nmi"] is not None else ""
    linear = "-" if measures["linear"] is None else f"{measures['linear']:.2f} %"
    terminal().print(
        f"k-NN {measures['knn']:.2f} %, linear {linear}, NMI of k-means with "
        f"{clusters} clusters {measures['kmeans_nmi']:.3f}{own}. {MEASURES_FILE} has the rest"
    )


def costs(
    run: Run,
    images: Annotated[str, typer.Option(help="Numbers of images, with commas.")] = "10000",
    classes: Annotated[int, typer.Option(help="Pseudo classes K.")] = 3000,
    methods: Annotated[str, typer.Option(help="With commas.")] = (
        "uic,deepcluster,selflabel,deepclusterv2"
    ),
    out: Annotated[Path | None, typer.Option(help="A CSV file for the rows.")] = None,
    overrides: Set = None,
) -> None:
    """Seconds that an epoch boundary takes beside training: labels, clustering, order."""
    from uic_plugin.experiments.compare.costs import boundary_costs
    from uic_plugin.report.tables import write_csv

    sizes = [part.strip() for part in images.split(",")]
    if not all(part.isdigit() for part in sizes):
        raise ValueError(f"--images must be whole numbers with commas, got {images!r}")
    rows = boundary_costs(
        run,
        [int(part) for part in sizes],
        classes,
        methods=[name.strip() for name in methods.split(",")],
        overrides=tuple(overrides or ()),
        say=terminal().print,
    )
    if out is not None:
        write_csv(out, rows)
