"""What the commands of PASCAL VOC share: arguments, the run's network, and the table at the end."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from uic_plugin.cli.common import terminal

if TYPE_CHECKING:
    from uic_plugin.runs.voc_network import PretrainedNetwork

VocDir = Annotated[Path, typer.Argument(help="Folder with VOCdevkit, or VOCdevkit/VOC2007.")]
Split = Annotated[str, typer.Option(help="Images to train on.")]
Test = Annotated[str, typer.Option(help="Images to test on.")]
Year = Annotated[str | None, typer.Option(help="Of the challenge, where there are several.")]
Out = Annotated[Path | None, typer.Option(help="Folder of the results; one in the run folder.")]


def network_of(run: Path, untrained: bool, overrides: list[str] | None) -> PretrainedNetwork:
    """Return the network of a run for a task."""
    from uic_plugin.runs.voc_network import pretrained_network

    return pretrained_network(run, untrained=untrained, overrides=overrides or [])


def folder_of(network: PretrainedNetwork, name: str) -> Path:
    """Return the folder of a task's results in the run folder."""
    return network.run / (f"{name}-untrained" if network.untrained else name)


def progress(title: str) -> AbstractContextManager[Callable[[int, int], None]]:
    """Show how much of something is done on the terminal."""
    from uic_plugin.report.progress import counting

    return counting(title, terminal())


def show(rows: list[dict[str, Any]], folder: Path, how: str) -> None:
    """Print a task's results."""
    table = Table(*rows[0])
    for row in rows:
        table.add_row(*map(str, row.values()))
    terminal().print(table)
    terminal().print(f"percent, {how}; {folder} has curve, pictures and results.csv")
