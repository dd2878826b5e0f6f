"""`uic discover`: classes from features."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from uic_plugin.cli.common import terminal
from uic_plugin.cli.embed import (
    WORKERS,
    BackboneName,
    Folder,
    Precision,
    Size,
    Weights,
    Workers,
)
from uic_plugin.cli.options import options_of
from uic_plugin.discovery.settings import AUTO, DiscoverySettings

From = Annotated[
    Path | None,
    typer.Option(
        "--from", help="Corrected label file ('uic labels apply'): its classes are the start."
    ),
]
AnyLayer = Annotated[
    str,
    typer.Option(
        "--layer",
        "-l",
        help="Whose output the features are; auto: what a run's classifiers read, or features.",
    ),
]
Finetune = Annotated[
    int,
    typer.Option(
        min=0,
        metavar="EPOCHS",
        help="Train the later half of the network on the classes for so long, and label again.",
    ),
]


@options_of(DiscoverySettings)
def discover(
    folder: Folder,
    classes: Annotated[str, typer.Option(help="Their number, or auto.")] = "auto",
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for the classes; by default FOLDER-classes, with --from FOLDER-classes-2."
        ),
    ] = None,
    features: Annotated[
        Path | None, typer.Option(help="Folder for the features; by default FOLDER-features.")
    ] = None,
    backbone: BackboneName = "lite0",
    weights: Weights = None,
    layer: AnyLayer = AUTO,
    size: Size = None,
    precision: Precision = "auto",
    workers: Workers = WORKERS,
    csv: Annotated[bool, typer.Option("--csv", help="labels.csv, not labels.parquet.")] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the classes that lie in --out.")
    ] = False,
    annotations: Annotated[
        bool,
        typer.Option("--annotations", help="Compare with the subfolders or the split's labels."),
    ] = False,
    from_: From = None,
    finetune: Finetune = 0,
    page: Annotated[bool, typer.Option(help="Write the page of the classes.")] = True,
    baselines: Annotated[
        str, typer.Option(help="Compare with these, too: k-means,mixture,spectral; or all.")
    ] = "",
    *,
    settings: DiscoverySettings,
) -> None:
    """Divide unlabelled images into classes, on the features of a pretrained network."""
    from uic_plugin.experiments.discovery import Request, run_discovery

    request = Request(
        folder=folder,
        classes=_count_of(classes),
        out=out or _out_for(folder, is_next=from_ is not None),
        features=features or _place_for(folder, "features"),
        backbone=backbone,
        weights=weights,
        layer=layer,
        size=size,
        precision=precision,
        workers=workers,
        csv=csv,
        overwrite=overwrite,
        annotations=annotations or bool(baselines),
        baselines=_baselines_of(baselines),
        corrected=from_,
        page=page,
        finetune=finetune,
        features_given=features is not None,
    )
    run_discovery(request, settings, terminal())


def _out_for(folder: Path, *, is_next: bool) -> Path:
    """Return where the classes of a folder go, or those of a next discovery."""
    from uic_plugin.discovery.folder import free_folder

    place = _place_for(folder, "classes")
    return free_folder(str(place)) if is_next else place


def _place_for(folder: Path, what: str) -> Path:
    """Return a folder where one stands, or beside the images where one stands among them."""
    name = f"{_name_of(folder)}-{what}"
    is_within = folder.is_dir() and Path.cwd().is_relative_to(folder.resolve())
    return folder.resolve().parent / name if is_within else Path(name)


def _count_of(classes: str) -> int | None:
    if classes == "auto":
        return None
    try:
        return int(classes)
    except ValueError:
        raise ValueError(f"--classes must be a whole number or auto, got {classes!r}") from None


def _baselines_of(names: str) -> tuple[str, ...]:
    from uic_plugin.discovery.baselines import BASELINES

    chosen = tuple(BASELINES) if names == "all" else tuple(n for n in names.split(",") if n)
    unknown = [name for name in chosen if name not in BASELINES]
    if unknown:
        raise ValueError(f"--baselines must be of {', '.join(BASELINES)}, got {unknown[0]!r}")
    return chosen


def _name_of(folder: Path) -> str:
    """`my-images` for `my/images`: the last two parts of a path as it was typed."""
    if folder.name in ("", ".."):  # the folder that one stands in, or one above it
        folder = Path(folder.resolve().name)
    elif folder.suffix == ".csv":
        folder = folder.with_suffix("")
    parts = [part for part in folder.parts if part not in ("/", "..")]
    return "-".join(parts[-2:]) or "images"
