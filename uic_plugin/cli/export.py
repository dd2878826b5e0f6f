"""`uic export`: take classes along."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from uic_plugin.cli.common import terminal


def export(
    labels: Annotated[Path, typer.Argument(help="Label file.")],
    data: Annotated[
        Path | None, typer.Argument(help="The folder of images that it is of; not for onnx.")
    ] = None,
    *,
    to: Annotated[
        str,
        typer.Option(
            help="folders, imagefolder (torchvision), csv, coco, fiftyone, embedding-atlas, "
            "lightly-studio or onnx."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder to make; for onnx the file.")],
    run: Annotated[
        Path | None, typer.Option(help="onnx: run folder with the network and its classifier.")
    ] = None,
    features: Annotated[
        Path | None, typer.Option(help="embedding-atlas: features, as for 'uic classes'.")
    ] = None,
    copy: Annotated[bool, typer.Option("--copy", help="Copy images in place of links.")] = False,
    everything: Annotated[
        bool, typer.Option("--all", help="Also images marked as wrong, and hidden classes.")
    ] = False,
) -> None:
    """Take classes along: as folders, as a table, or for another program."""
    _refuse_unused(to, data=data, run=run, features=features, copy=copy, everything=everything)
    if to == "onnx":
        _onnx(labels, run, out)
        return
    if data is None:
        raise ValueError(f"--to {to} needs the folder of images: uic export LABELS FOLDER ...")
    from uic_plugin.data.labels import read_labels
    from uic_plugin.data.originals import image_root
    from uic_plugin.export import export_classes
    from uic_plugin.features.stored import read_any_features

    values = None
    if features is not None:
        values = read_any_features(features, image_root(data), read_labels(labels).paths)
    done = export_classes(labels, data, to, out, copy=copy, everything=everything, features=values)
    without = f", {done.left_out} left out (--all)" if done.left_out else ""
    terminal().print(f"{out}: {len(done.table)} images in {len(done.names)} classes{without}")


def _refuse_unused(
    to: str,
    *,
    data: Path | None,
    run: Path | None,
    features: Path | None,
    copy: bool,
    everything: bool,
) -> None:
    """Refuse an option that a kind of export has no use for."""
    from uic_plugin.export import KINDS, LINKING

    if to != "onnx" and to not in KINDS:
        raise ValueError(f"--to must be one of {', '.join((*KINDS, 'onnx'))}, got {to!r}")
    given = {
        "the folder of images": data is not None and to == "onnx",
        "--all": everything and to == "onnx",
        "--run": run is not None and to != "onnx",
        "--features": features is not None and to != "embedding-atlas",
        "--copy": copy and to not in LINKING,
    }
    unused = [name for name, is_given in given.items() if is_given]
    if unused:
        raise ValueError(f"--to {to} has no use for {unused[0]}: leave it out")


def _onnx(labels: Path, run: Path | None, out: Path) -> None:
    from uic_plugin.runs.onnx import export_onnx, output_names
    from uic_plugin.runs.run import Run

    if run is None:
        raise ValueError("--to onnx needs the network: --run RUN")
    opened = Run.open(run)
    worst = export_onnx(opened, out, names=output_names(opened, labels))
    terminal().print(f"{out}: network and classifier; onnxruntime differs by at most {worst:.1e}")
