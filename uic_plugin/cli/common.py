"""What the subcommands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

Overrides = Annotated[
    list[str] | None, typer.Argument(help="Hydra overrides, as optimizer.lr=0.2.")
]
Set = Annotated[
    list[str] | None, typer.Option("--set", help="Override of the run's recipe, key=value.")
]
Untrained = Annotated[
    bool, typer.Option("--untrained", help="The run's network with its random weights instead.")
]
Stores = Annotated[
    list[Path] | None,
    typer.Option(
        "--features",
        help="Features of 'uic embed --backbone RUN' in place of the network: those of a folder "
        "above the images, or repeated.",
    ),
]
RunPath = Annotated[Path, typer.Argument(help="A run folder, or a checkpoint in it.")]

Layers = Annotated[
    list[str] | None,
    typer.Option("--layers", "-l", help="Names, with commas or repeated, as conv3,conv4,conv5."),
]


def names_of(given: list[str] | None) -> list[str]:
    """Return names that were given with commas or repeated."""
    return [name for part in given or [] for name in part.split(",") if name]


def terminal() -> Console:
    """The standard output; a file or a pipe takes tables in their own width."""
    console = Console(soft_wrap=True, highlight=False, markup=False)
    if not console.is_terminal:
        console.width = 160
    return console
