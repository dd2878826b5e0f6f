"""Checkpoints of a run: whole or not at all, also within an epoch and when it is asked to stop."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from typing import Any

import torch

from uic_plugin.hosts.lightning import pl
from uic_plugin.ranks import is_lost_rank, world_size


class CheckpointError(OSError):
    """A checkpoint could not be written; the one before it is whole."""


class RunCheckpoint(pl.Callback):
    """Keeps `last.ckpt`, and `previous.ckpt`, the one before it.

    After every epoch; within it after so many steps, and when the run is asked to stop (SIGTERM),
    where the method can resume at a step. Ranks tell each other in every step whether one of them
    has been asked to, on the CPU and without waiting for the answer: it is read a step later, so
    that all stop at the same step.

    Args:
        last: the checkpoint; its folder exists.
        previous: what was the last one before.
        every_steps: steps of an epoch between two, 0: none within an epoch.
    """

    def __init__(self, last: Path, previous: Path, every_steps: int = 0) -> None:
        self.last, self.previous, self.every_steps = last, previous, every_steps
        self._is_asked_to_stop = False
        self._handler: Any = None
        self._group: Any = None  # of the ranks, on the CPU
        self._flag = torch.zeros(1, dtype=torch.uint8)
        self._answer: Any = None  # of the ranks, on its way

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take the request to stop into our own hands: Lightning drops the epoch's work."""

        def take_note(number: int, frame: Any) -> None:
            self._is_asked_to_stop = True

        if threading.current_thread() is threading.main_thread():  # no other may
            self._handler = signal.signal(signal.SIGTERM, take_note)
        if world_size() > 1:
            patience = getattr(trainer.strategy, "_timeout", None)  # rank_timeout
            self._group = torch.distributed.new_group(backend="gloo", timeout=patience)

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        *_: Any,
    ) -> None:
        """Save within the epoch, where it is time to; not after its last step, when it is over."""
        steps = getattr(pl_module, "steps_done", 0)
        must_stop = self._must_stop()
        if steps % trainer.accumulate_grad_batches:
            return  # gradients of the steps since are in no checkpoint
        if batch_idx + 1 >= trainer.num_training_batches:
            return
        has_progress = steps > 0
        if has_progress and (must_stop or (self.every_steps and steps % self.every_steps == 0)):
            self._save(trainer)
        if must_stop:
            raise SystemExit(128 + signal.SIGTERM)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save."""
        self._save(trainer)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop, if asked to: not before, loggers get an epoch's metrics after its last hook."""
        if self._must_stop():
            raise SystemExit(128 + signal.SIGTERM)

    def teardown(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: Any = None
    ) -> None:
        """Give the signal back."""
        if self._handler is not None:
            signal.signal(signal.SIGTERM, self._handler)
            self._handler = None

    def _must_stop(self) -> bool:
        """Return whether any rank had been asked to one step ago: all have to save at one step."""
        if self._group is None:
            return self._is_asked_to_stop
        must_stop = False
        if self._answer is not None:
            self._answer.wait()  # of the step before: it has long been there
            must_stop = bool(self._flag.numpy()[0])
        self._flag = torch.full((1,), int(self._is_asked_to_stop or must_stop), dtype=torch.uint8)
        self._answer = torch.distributed.all_reduce(
            self._flag, torch.distributed.ReduceOp.MAX, group=self._group, async_op=True
        )
        return must_stop

    def _save(self, trainer: pl.Trainer) -> None:
        new = self.last.with_name(self.last.name + ".new")
        try:
            trainer.save_checkpoint(new)
            if trainer.is_global_zero:
                # between the two renames a kill leaves `previous` alone, which is as good
                if self.last.exists():
                    os.replace(self.last, self.previous)
                os.replace(new, self.last)
        except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError
            if isinstance(error, RuntimeError) and is_lost_rank(error):
                raise
            if trainer.is_global_zero:
                new.unlink(missing_ok=True)
            before = "the checkpoint before it is whole" if self.last.exists() else "none is left"
            raise CheckpointError(
                f"cannot write the checkpoint {self.last} ({reason_of(error)}); {before}: make "
                f"room and give the same command to resume from there"
            ) from error


def reason_of(error: BaseException) -> str:
    """Return an error's reason in the system's words, or its own first line."""
    number = getattr(error, "errno", None)
    return os.strerror(number) if number else str(error).split("\n")[0]
