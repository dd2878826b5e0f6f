"""What `uic discover` shows: its progress, the curve over the number of classes, empty classes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.progress import Progress as Bars
from rich.table import Table

from uic_plugin.discovery.balance import EQUAL
from uic_plugin.discovery.search import Found, Progress
from uic_plugin.discovery.settings import DiscoverySettings


def curve_table(found: Found) -> Table:
    """Return information and agreement of each number of classes that was tried."""
    table = Table("classes", "information from neighbours, nats", "agreement of heads (ARI)")
    for point in found.count.curve if found.count else ():
        table.add_row(str(point.classes), f"{-point.loss:.3f}", f"{point.agreement:.3f}")
    return table


def say_empty(found: Found, settings: DiscoverySettings, console: Console) -> None:
    """Say how many classes have images, where some have none, and what gives more of them some."""
    used = len(np.unique(found.answers.labels))
    if used == found.model.num_classes:
        return
    exponent = settings.balance if found.balance is None else found.balance.exponent
    way = "on these features" if exponent == EQUAL else "with this balance; --balance 1 fills more"
    console.print(
        f"{used} of {found.model.num_classes} classes have images: these images do not divide into "
        f"more {way}",
        soft_wrap=True,
    )


@contextmanager
def shown_progress(console: Console) -> Iterator[Progress]:
    """Show a bar on a terminal that says what is being done; nothing anywhere else."""
    if not console.is_terminal:
        yield lambda title, done, total: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Bars(*columns, console=console, transient=True) as bars:
        task = bars.add_task("")
        yield lambda title, done, total: bars.update(
            task, description=title, completed=done, total=total
        )
