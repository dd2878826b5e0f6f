"""`uic measure`: all figures of a run."""

from __future__ import annotations

from typing import Annotated

import typer

from uic_plugin.cli.common import RunPath, Set, terminal


def measure(
    run: RunPath,
    clusters: Annotated[int, typer.Option(help="Of k-means on the features, for NMI.")] = 100,
    knn_only: Annotated[bool, typer.Option("--knn-only", help="Nothing but k-NN.")] = False,
    overrides: Set = None,
) -> None:
    """k-NN, linear, NMI, cost and curve of a finished run, as `uic compare` takes them."""
    from uic_plugin.experiments.compare.measure import measure_run
    from uic_plugin.experiments.compare.plan import MEASURES_FILE

    given = tuple(overrides or ())
    measures = measure_run(run, clusters=clusters, overrides=given, knn_only=knn_only)
    if knn_only:
        terminal().print(f"k-NN {measures['knn']:.2f} %. {MEASURES_FILE} has the run's cost")
        return
    own = f", of its own labels {measures['nmi']:.3f}" if measures["nmi"] is not None else ""
    linear = "-" if measures["linear"] is None else f"{measures['linear']:.2f} %"
    terminal().print(
        f"k-NN {measures['knn']:.2f} %, linear {linear}, NMI of k-means with "
        f"{clusters} clusters {measures['kmeans_nmi']:.3f}{own}. {MEASURES_FILE} has the rest"
    )
