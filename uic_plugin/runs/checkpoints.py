"""Checkpoints of a run: whole or not at all, also within an epoch and when it is asked to stop."""

from __future__ import annotations

import math
import os
import signal
import threading
from pathlib import Path
from typing import Any

import torch
from uic_plugin.hosts.lightning import pl

from uic_plugin.errors import NonFiniteError
from uic_plugin.files import replacing
from uic_plugin.ranks import is_lost_rank, world_size



class CheckpointError(OSError):
    """A checkpoint could not be written; the one before it is whole."""


class WholeCheckpointIO(pl.plugins.TorchCheckpointIO):
    """Lightning's checkpoint files, written whole or not at all, and never with NaN in them.

    In the place of a trainer's own it holds for every callback that saves, the host's too.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None
    ) -> None:
        """Write to a temporary file, flush to disk, rename.

        Raises:
            NonFiniteError: for weights that are no numbers.
        """
        if "://" in str(path):  # another machine's, which Lightning knows how to reach
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        broken = [
            name for name, value in checkpoint["state_dict"].items() if _is_broken(name, value)
        ]
        if broken:
            raise NonFiniteError(
                f"{len(broken)} of the weights are NaN or infinite ({', '.join(broken[:3])}), and "
                f"{path} is left as it was: go on from an earlier checkpoint with a lower "
                f"optimizer.lr or precision=32"
            )
        with replacing(Path(path)) as part:
            torch.save(checkpoint, part)


def _is_broken(name: str, value: Any) -> bool:
    """Whether a weight is NaN or infinite; a buffer may be infinite on purpose, as a mask."""
    if not isinstance(value, torch.Tensor) or not value.is_floating_point():
        return False
    is_weight = name.endswith(("weight", "bias"))
    return not bool(torch.isfinite(value).all() if is_weight else not torch.isnan(value).any())


def write_whole_checkpoints(trainer: Any) -> None:
    """Make a trainer's checkpoints whole, unless it has an IO of another kind."""
    if type(trainer.strategy.checkpoint_io) is pl.plugins.TorchCheckpointIO:
        trainer.strategy.checkpoint_io = WholeCheckpointIO()


class RunCheckpoint(pl.Callback):
    """Keeps `last.ckpt`, and `previous.ckpt`, the one before it.

    After every epoch; within it after so many steps, and when the run is asked to stop (SIGTERM),
    where the method can go on at a step.

    Args:
        last: the checkpoint; its folder exists.
        previous: what was the last one before.
        every_steps: steps of an epoch between two, 0: none within an epoch.
    """

    def __init__(self, last: Path, previous: Path, every_steps: int = 0) -> None:
        self.last, self.previous, self.every_steps = last, previous, every_steps
        self._is_asked_to_stop = False
        self._handler: Any = None

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Take the request to stop into our own hands: Lightning drops the epoch's work."""

        def take_note(number: int, frame: Any) -> None:
            self._is_asked_to_stop = True

        if threading.current_thread() is threading.main_thread():  # no other may
            self._handler = signal.signal(signal.SIGTERM, take_note)

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, *_: Any
    ) -> None:
        """Save within the epoch, where it is time to; not after its last step, when it is over."""
        steps = getattr(pl_module, "steps_done", 0)
        must_stop = self._must_stop(pl_module)
        if steps % trainer.accumulate_grad_batches:
            return  # gradients of the steps since are in no checkpoint
        if batch_idx + 1 >= trainer.num_training_batches:
            return
        can_go_on = steps > 0
        if can_go_on and (must_stop or (self.every_steps and steps % self.every_steps == 0)):
            self._save(trainer)
        if must_stop:
            raise SystemExit(128 + signal.SIGTERM)

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Save."""
        self._save(trainer)

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Stop, if asked to: not before, loggers get an epoch's metrics after its last hook."""
        if self._must_stop(pl_module):
            raise SystemExit(128 + signal.SIGTERM)

    def teardown(self, trainer: Any, pl_module: Any, stage: Any = None) -> None:
        """Give the signal back."""
        if self._handler is not None:
            signal.signal(signal.SIGTERM, self._handler)
            self._handler = None

    def _must_stop(self, pl_module: Any) -> bool:
        """Whether any rank has been asked to: all have to save at the same step."""
        if world_size() == 1:
            return self._is_asked_to_stop
        flag = torch.tensor([self._is_asked_to_stop], dtype=torch.uint8, device=pl_module.device)
        torch.distributed.all_reduce(flag, torch.distributed.ReduceOp.MAX)
        return bool(flag)

    def _save(self, trainer: Any) -> None:
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
                f"room and give the same command to go on from there"
            ) from error


def reason_of(error: BaseException) -> str:
    """An error's reason in the system's words, or its own first line."""
    number = getattr(error, "errno", None)
    return os.strerror(number) if number else str(error).split("\n")[0]


class FiniteLoss(pl.Callback):
    """Stops a run at a loss that is NaN or infinite, before it reaches weights or a checkpoint."""

    def __init__(self) -> None:
        self._images: Any = None

    def on_train_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int, *_: Any
    ) -> None:
        """Remember whose loss it will be."""
        is_ours = isinstance(batch, (list, tuple)) and isinstance(batch[0], torch.Tensor)
        self._images = batch[0] if is_ours and batch[0].ndim == 1 else None

    def on_before_backward(self, trainer: Any, pl_module: Any, loss: torch.Tensor) -> None:
        """Look at the loss.

        Raises:
            NonFiniteError: naming step and images, or the online classifier.
        """
        value = float(loss.detach())
        if math.isfinite(value):
            return
        step = f"step {trainer.global_step + 1} (epoch {trainer.current_epoch + 1})"
        own = getattr(pl_module, "own_loss", None)
        if own is not None and math.isfinite(float(own)):
            raise NonFiniteError(
                f"the loss of the host's online classifier is {value} at {step}, that of "
                f"{pl_module.name} itself is {float(own):.4g}: set a lower "
                f"optimizer.classifier_lr, or data.no_labels=true to train without the classifier"
            )
        name = getattr(pl_module, "image_name", str)
        images = [] if self._images is None else self._images.tolist()
        names = ", ".join(name(image) for image in images[:8])
        more = f" and {len(images) - 8} more" if len(images) > 8 else ""
        raise NonFiniteError(
            f"the loss is {value} at {step}, on images {names}{more}. No checkpoint holds this "
            f"step. Go on from the last one with resume_from_checkpoint=FILE in another run_dir, "
            f"with a lower optimizer.lr, gradient_clip_val or precision=32; if the images are at "
            f"fault, mend them"
        )
