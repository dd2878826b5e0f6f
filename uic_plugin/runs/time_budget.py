"""A training that ends when its seconds are over, with a learning rate that ends with it.

`max_seconds` cuts the epochs of a recipe to what fits: each of those that are left gets an equal
part of the seconds that are left. Schedules follow the clock, so that the learning rate is at zero
when the time is over, on a fast machine and on a slow one. Everything between the first label and
the end of the last epoch counts: first labels, steps, label passes, clustering; saving and
evaluation do not. The seconds are the processor's where one thread on the CPU does all the work,
else the wall's: see `uic_plugin.runs.settings.uses_processor_clock`. Two such trainings of the same
seed take as many steps as the machine allows, so that they are not equal bit for bit.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from uic_plugin.hosts.lightning import pl
from uic_plugin.report.tables import read_csv

_Clock = Callable[[], float]


class TimeBudget(pl.Callback):
    """Ends epochs early enough for all of them to fit, and tells the method how much is over.

    The seconds are the processor's where one thread on the CPU does all the work, because other
    programs add nothing to them; else the wall's.

    Args:
        seconds: of the training.
        on_processor: whether the processor's seconds count.
        history: `epochs.csv` of the run, from which a resumed one takes the seconds it has used.
    """

    def __init__(self, seconds: float, *, on_processor: bool, history: Path) -> None:
        self.seconds, self.history = seconds, history
        self.column = "cpu_seconds" if on_processor else "seconds"
        self._begun = "begin_cpu_seconds" if on_processor else "begin_seconds"
        self.clock: _Clock = time.process_time if on_processor else time.perf_counter
        self.used = 0.0  # in the epochs that are over, and before a resume
        self._saved = 0.0  # by a checkpoint, which may lie within an epoch
        self._ended_epoch = False  # whether the checkpoint lies behind an epoch
        self._batches = 0  # of a whole epoch
        self._steps = self._all_steps = 0
        self._is_training = False
        self._started = 0.0
        self._until: float | None = None  # when the epoch ends, once it has begun
        self._first_batch: int | None = None  # of the epoch, or of what a resume leaves of it
        self._second_step = self._this_step = 0.0  # when they began
        self._step_seconds = 0.0
        self._end_seconds = 0.0  # what an epoch's end takes beside its last step

    def progress(self) -> float:
        """Return how much of the training is over, in [0, 1]; a schedule reads it.

        It is 1 at the last step: labels that are made behind it are no part of the schedule.
        """
        if not self._is_training:
            return 0.0
        steps = self._steps / max(self._all_steps, 1)
        seconds = max(self.seconds - self._end_seconds, 1e-9)
        return min(1.0, max(steps, self._now() / seconds))

    def _now(self) -> float:
        return self.used + self.clock() - self._started

    def state_dict(self) -> dict[str, Any]:
        """Return the seconds that are used, and of which clock they are."""
        used = self._now() if self._is_training else self.used
        return {"used": used, "clock": self.column, "ended_epoch": self._until is None}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the seconds that are used.

        Those of the other clock, as of a training that had one thread and has several now, are left
        out: `epochs.csv` has both clocks up to the last whole epoch.
        """
        is_own = state_dict.get("clock", self.column) == self.column  # earlier releases said none
        self._saved = float(state_dict["used"]) if is_own else 0.0
        self._ended_epoch = state_dict.get("ended_epoch", False)

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Let schedules follow the clock; before the host makes them."""
        pl_module.progress = self.progress  # type: ignore[assignment]

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take over the seconds that are used: by first labels, or before a resume."""
        self._batches = int(trainer.num_training_batches)
        self._all_steps = self._batches * (trainer.max_epochs or 1)
        self._steps = trainer.current_epoch * self._batches
        self.used = getattr(pl_module, self._begun, 0.0)
        if trainer.current_epoch > 0 and self.history.exists():
            rows = read_csv(self.history)[: trainer.current_epoch]
            self.used = sum(float(row[self.column]) for row in rows)
        self.used = max(self.used, self._saved)
        self._started = self.clock()
        self._is_training = True
        if self._ended_epoch and self.used >= self.seconds:
            trainer.should_stop = True

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Give the epoch its part of the seconds that are left."""
        self._begin_epoch(trainer)

    def _begin_epoch(self, trainer: pl.Trainer) -> None:
        set_batches(trainer, self._batches)
        self._started, self._first_batch = self.clock(), None
        left = max(1, (trainer.max_epochs or 1) - trainer.current_epoch)
        self._until = self.used + max(0.0, self.seconds - self.used) / left

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Let this step be the epoch's last if it ends nearer to the epoch's time than the next."""
        if self._until is None:  # Lightning 2 does not start an epoch again that is resumed
            self._begin_epoch(trainer)
        self._this_step = now = self._now()
        if self._first_batch is None:
            self._first_batch = batch_idx
            self._steps = trainer.current_epoch * self._batches + batch_idx  # of a resume, too
        done = batch_idx - self._first_batch
        if done == 1:
            self._second_step = now  # the first one warms up
        elif done > 1:
            self._step_seconds = (now - self._second_step) / (done - 1)
        if now + 1.5 * self._step_seconds + self._end_seconds >= (self._until or 0.0):
            set_batches(trainer, batch_idx + 1)
        _set_momentum(pl_module, self.progress())

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        *_: Any,
    ) -> None:
        """Learn what the last step of an epoch takes longer than another: labels of all images."""
        self._steps += 1
        if batch_idx + 1 >= trainer.num_training_batches:
            took = self._now() - self._this_step
            self._end_seconds = max(0.0, took - self._step_seconds)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Note what the epoch took, and stop if nothing is left."""
        self.used = self._now()
        self._started, self._until = self.clock(), None
        self._steps = (trainer.current_epoch + 1) * self._batches
        if self.used >= self.seconds:
            trainer.should_stop = True


def set_batches(trainer: pl.Trainer, batches: int) -> None:
    """Set the number of batches of the present epoch, on either line of Lightning."""
    if isinstance(getattr(type(trainer), "num_training_batches", None), property):
        trainer.fit_loop.max_batches = batches  # type: ignore[attr-defined]
    else:
        trainer.num_training_batches = batches


def _set_momentum(method: Any, progress: float) -> None:
    """Let the host's moving average of the weights follow the clock, too."""
    updater = getattr(method, "momentum_updater", None)
    if updater is not None:
        rest = (math.cos(math.pi * progress) + 1) / 2
        updater.cur_tau = updater.final_tau - (updater.final_tau - updater.base_tau) * rest
