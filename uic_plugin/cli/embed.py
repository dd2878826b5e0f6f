"""`uic embed`: features of a frozen network, once."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from uic_plugin.cli.common import terminal

Folder = Annotated[Path, typer.Argument(help="Folder of images, or a split's .csv.")]
BackboneName = Annotated[
    str,
    typer.Option("--backbone", help="lite0, a name of timm (pretrained), or a run folder."),
]
Weights = Annotated[Path | None, typer.Option(help="A file of weights for that network.")]
Layer = Annotated[str, typer.Option("--layer", "-l", help="Whose output the features are.")]
Size = Annotated[int | None, typer.Option(help="Crop in pixels; the network's own by default.")]
Precision = Annotated[str, typer.Option(help="auto (the faster one), 32 or bf16.")]
Workers = Annotated[int, typer.Option(help="Processes that read images.")]
WORKERS = max(1, (os.cpu_count() or 2) // 2)


def embed(
    folder: Folder,
    out: Annotated[Path, typer.Option(help="Folder for the features.")],
    backbone: BackboneName = "lite0",
    weights: Weights = None,
    layer: Layer = "features",
    size: Size = None,
    precision: Precision = "auto",
    batch_size: Annotated[int, typer.Option(help="Images at once.")] = 32,
    workers: Workers = WORKERS,
) -> None:
    """Features of every image by a frozen network, once; later calls add what is new."""
    from uic_plugin.data.folders import list_images
    from uic_plugin.experiments.discovery import say_bad
    from uic_plugin.features.embedding import embed_images
    from uic_plugin.report.progress import counting
    from uic_plugin.runs.frozen import open_backbone

    images = list_images(folder)
    network = open_backbone(backbone, weights=weights, layer=layer, size=size)
    with counting("images", terminal()) as progress:
        done = embed_images(
            network,
            images,
            out,
            precision=precision,
            batch_size=batch_size,
            num_workers=workers,
            progress=progress,
        )
    say_bad(done, images.root, terminal())
    rate = f", {done.added / done.seconds:.0f} a second" if done.added else ""
    terminal().print(
        f"{out}: {len(done.names)} images of {done.store.identity.dim} dimensions, {done.added} "
        f"new in {done.seconds:.0f} s{rate}, {len(done.bad)} unreadable "
        f"({backbone}, precision {done.store.identity.precision})"
    )
