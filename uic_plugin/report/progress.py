"""Show progress: a bar on a terminal, a line per epoch elsewhere."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

# every method logs a loss of its own name, DINO and ReSSL without "train_"; a host's online
# classifiers log those of annotated classes
_LOSS = re.compile(r"(train_)?(?!(train|class|online|momentum|val)_)\w+_loss(_epoch)?")
_SHOWN = (
    ("changed", ("uic_changed",)),
    ("NMI", ("uic_nmi",)),
    ("NMI to last", ("uic_nmi_previous",)),
    ("purity", ("uic_purity",)),
    ("classes used", ("uic_classes_used",)),
    ("val k-NN", ("val_knn_acc1",)),
)


def _short(value: float) -> str:
    """Return a number in three digits, a count in all of its own."""
    return f"{int(value)}" if float(value).is_integer() else f"{value:.3g}"


class EpochReporter:
    """Shows a run's progress.

    Args:
        title: printed before the numbers.
        console: by default the standard output.
    """

    def __init__(self, title: str, console: Console | None = None) -> None:
        self.title = title
        self.console = console or Console(soft_wrap=True, markup=False)
        self._progress: Progress | None = None
        self._numbers = ""

    def start(self, epochs: int, batches: float) -> None:
        """Start the progress of a run of so many epochs of so many batches."""
        self.epochs, self.batches = epochs, batches
        if self.console.is_terminal:
            self._progress = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.fields[numbers]}"),
                TimeRemainingColumn(),
                console=self.console,
            )
            self._task = self._progress.add_task(self.title, total=epochs * batches, numbers="")
            self._progress.start()

    @property
    def shows_steps(self) -> bool:
        """Tell whether there is a bar that moves with every batch."""
        return self._progress is not None

    def step(self, epoch: int, batch: int, loss: float) -> None:
        """Show that a batch is done."""
        if self._progress is not None:
            numbers = f"epoch {epoch + 1}/{self.epochs}  loss {loss:.3f}  {self._numbers}"
            self._progress.update(
                self._task, completed=epoch * self.batches + batch + 1, numbers=numbers
            )

    def epoch(self, row: Mapping[str, Any]) -> None:
        """Show that an epoch is done; `row` holds its numbers."""
        losses = [name for name in row if _LOSS.fullmatch(name)]
        wanted = (("loss", sorted(losses, key=len, reverse=True)), *_SHOWN)
        found = [(label, [row[name] for name in names if name in row]) for label, names in wanted]
        shown = [f"{label} {_short(values[0])}" for label, values in found if values]
        self._numbers = "  ".join(text for text in shown if not text.startswith("loss "))
        if self._progress is None:
            self.console.print(
                f"{self.title} epoch {row['epoch']}/{self.epochs}  {'  '.join(shown)}  "
                f"{row['seconds']:.1f} s",
                highlight=False,
            )

    def stop(self) -> None:
        """Remove the bar from the screen."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None


@contextmanager
def counting(title: str, console: Console) -> Iterator[Callable[[int, int], None]]:
    """Return a bar on a terminal, else a line for each tenth; takes what is done and the whole."""
    if console.is_terminal:
        columns = (TextColumn(title), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console) as bar:
            task = bar.add_task(title)
            yield lambda done, total: bar.update(task, completed=done, total=total)
        return
    told = 0

    def tell(done: int, total: int) -> None:
        nonlocal told
        tenth = 10 * done // total
        if tenth > told:
            told = tenth
            console.print(f"{title}: {done} of {total}")

    yield tell
