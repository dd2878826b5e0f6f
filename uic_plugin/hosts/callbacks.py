"""What `uic pretrain` adds to a run: a whole checkpoint, a history and a line per epoch."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from solo.methods.base import pl

from uic_plugin.report.progress import EpochReporter
from uic_plugin.report.tables import read_csv, write_csv


class CheckpointError(OSError):
    """A checkpoint could not be written; the one before it is whole."""


class EpochCheckpoint(pl.Callback):
    """Keeps `last.ckpt` of the last finished epoch: written whole or not at all.

    Args:
        path: the checkpoint; its folder exists.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Write to a temporary file, flush to disk, rename."""
        part = self.path.with_name(self.path.name + ".part")
        try:
            trainer.save_checkpoint(part)
            if trainer.is_global_zero:
                with open(part, "rb") as file:
                    os.fsync(file.fileno())
                os.replace(part, self.path)
        except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError
            part.unlink(missing_ok=True)
            before = "the checkpoint before it is whole" if self.path.exists() else "none is left"
            raise CheckpointError(
                f"cannot write the checkpoint {self.path} ({_reason(error)}); {before}: make room "
                f"and give the same command to go on from there"
            ) from error


def _reason(error: BaseException) -> str:
    number = getattr(error, "errno", None)
    return os.strerror(number) if number else str(error).split("\n")[0]


class History(pl.Callback):
    """One CSV row per epoch with everything that was logged; on a resume, rows go on.

    Args:
        path: the CSV file.
        reporter: shows the same numbers to a person.
    """

    def __init__(self, path: Path, reporter: EpochReporter) -> None:
        self.path = path
        self.reporter = reporter
        self.rows: list[dict[str, Any]] = []
        self._started = 0.0

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Take over the rows of the epochs that a resumed run has behind it."""
        if self.path.exists() and trainer.current_epoch > 0:
            rows: list[dict[str, Any]] = [*read_csv(self.path)]
            self.rows = [row for row in rows if int(row["epoch"]) <= trainer.current_epoch]
        if trainer.is_global_zero:
            self.reporter.start(trainer.max_epochs, trainer.num_training_batches)

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Start the epoch's clock."""
        self._started = time.perf_counter()

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, *_: Any
    ) -> None:
        """Move the bar."""
        if trainer.is_global_zero:
            total = outputs["loss"] if isinstance(outputs, dict) else outputs
            # without the host's online classifier, where the method logs its own loss
            loss = trainer.callback_metrics.get("train_uic_loss_step", total)
            self.reporter.step(trainer.current_epoch, batch_idx, float(loss))

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Write the row, print the line."""
        values = {
            name: float(value)
            for name, value in trainer.callback_metrics.items()
            if not name.endswith("_step")
        }
        values.update(
            {f"uic_{k}": v for k, v in (getattr(pl_module, "epoch_metrics", None) or {}).items()}
        )
        row: dict[str, Any] = {
            "epoch": trainer.current_epoch + 1,
            "seconds": round(time.perf_counter() - self._started, 3),
            **values,
        }
        self.rows.append(row)
        if trainer.is_global_zero:
            self.reporter.epoch(row)
            try:
                write_csv(self.path, self.rows)
            except OSError as error:
                raise CheckpointError(
                    f"cannot write {self.path} ({_reason(error)}): make room and give the same "
                    f"command to go on from the last checkpoint"
                ) from error

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Take the bar off the screen."""
        self.reporter.stop()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Take the bar off the screen before the error is shown."""
        self.reporter.stop()
