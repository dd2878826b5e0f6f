"""Guards of every training: whole checkpoint files, and a stop at a loss that is NaN.

Also under the host's own scripts, where no run of ours is around.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from uic_plugin.errors import NonFiniteError
from uic_plugin.files import replacing
from uic_plugin.hosts.lightning import pl
from uic_plugin.readout import Readout


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
                f"{path} is left as it was: resume from an earlier checkpoint with a lower "
                f"optimizer.lr or precision=32"
            )
        with replacing(Path(path)) as part:
            torch.save(checkpoint, part)


def _is_broken(name: str, value: Any) -> bool:
    """Return whether a weight is NaN or infinite; a buffer, as a mask, may be infinite."""
    if not isinstance(value, torch.Tensor) or not value.is_floating_point():
        return False
    is_weight = name.endswith(("weight", "bias"))
    return not bool(torch.isfinite(value).all() if is_weight else not torch.isnan(value).any())


def write_whole_checkpoints(trainer: pl.Trainer) -> None:
    """Make a trainer's checkpoints whole, unless it has an IO of another kind."""
    if type(trainer.strategy.checkpoint_io) is pl.plugins.TorchCheckpointIO:
        trainer.strategy.checkpoint_io = WholeCheckpointIO()


@dataclass(frozen=True)
class _Step:
    """Keeps what is said of a step whose loss turns out to be NaN or infinite.

    Attributes:
        number: steps before it in the run.
        epoch: its epoch, counted from 0.
        images: (B,) their indices on the device; None where they have none.
        loss: the loss, scalar on the device.
        own: the method's own part of it; None where the method does not tell.
    """

    number: int
    epoch: int
    images: torch.Tensor | None
    loss: torch.Tensor
    own: torch.Tensor | None


class FiniteLoss(pl.Callback):
    """Stops a run at a loss that is NaN or infinite, before it reaches a checkpoint.

    No step waits for the device. Losses are added up there, and the sum is looked at when it has
    arrived: on the CPU before the step's gradients are computed, on a GPU some steps later. Before
    a checkpoint is written, and around the epoch boundary, the callback waits for the sum, so
    that nothing that is kept comes after such a loss.

    Args:
        readout: brings the sum to the CPU.
    """

    def __init__(self, readout: Readout | None = None) -> None:
        self._readout = readout or Readout()
        self._images: torch.Tensor | None = None
        self._total: torch.Tensor | None = None
        self._steps: list[_Step] = []  # those since the last sum that was found finite
        self._first = 0  # number of the first of them, as the readout counts

    def on_train_batch_start(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        batch: Any,
        batch_idx: int,
        *_: Any,
    ) -> None:
        """Remember whose loss it will be; before the epoch boundary, wait for those before."""
        index_of = getattr(pl_module, "index_of", _first_of)
        self._images = index_of(batch)
        if batch_idx + 1 >= trainer.num_training_batches:
            self._wait(pl_module)

    def on_before_backward(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: torch.Tensor
    ) -> None:
        """Add the loss to the sum, and look at the newest sum that has arrived.

        Raises:
            NonFiniteError: naming step and images, or the online classifier.
        """
        loss = loss.detach()
        own = getattr(pl_module, "own_loss", None)
        step = _Step(trainer.global_step, trainer.current_epoch, self._images, loss, own)
        self._steps.append(step)
        self._total = loss if self._total is None else self._total + loss
        self._readout.offer(self._total)
        total = self._readout.poll()
        if total is None or self._readout.count <= self._first:
            return
        if not np.isfinite(total).all():
            self._wait(pl_module)
            return
        del self._steps[: self._readout.count - self._first]
        self._first = self._readout.count

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        *_: Any,
    ) -> None:
        """Wait for the epoch's last loss, before anyone writes down what the epoch gave."""
        if batch_idx + 1 >= trainer.num_training_batches:
            self._wait(pl_module)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Wait for the last losses of a stream, whose end is not known before."""
        self._wait(pl_module)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Wait for all losses so far: no checkpoint comes after one that is no number."""
        self._wait(pl_module)

    def _wait(self, pl_module: pl.LightningModule) -> None:
        """Look at the sum of all losses so far, and if it is not finite at each of them."""
        if self._total is not None and not math.isfinite(float(self._total)):
            for step in self._steps:
                value = float(step.loss)
                if not math.isfinite(value):
                    _stop(pl_module, step, value)
        # finite, or a sum of finite losses that was too large
        self._first += len(self._steps)
        self._steps.clear()
        self._total = None


def _first_of(batch: Any) -> torch.Tensor | None:
    """Return the indices (B,) that a batch begins with, None where it does not."""
    is_ours = isinstance(batch, (list, tuple)) and isinstance(batch[0], torch.Tensor)
    return batch[0] if is_ours and batch[0].ndim == 1 else None


def _stop(pl_module: pl.LightningModule, step: _Step, value: float) -> None:
    """Raise `NonFiniteError` for a step's loss, naming its images or the online classifier."""
    name = f"step {step.number + 1} (epoch {step.epoch + 1})"
    if step.own is not None and math.isfinite(float(step.own)):
        raise NonFiniteError(
            f"the loss of the host's online classifier is {value} at {name}, that of "
            f"{pl_module.name} itself is {float(step.own):.4g}: set a lower "
            f"optimizer.classifier_lr, or data.no_labels=true to train without the classifier"
        )
    image_name = getattr(pl_module, "image_name", str)
    images = [] if step.images is None else step.images.tolist()
    names = ", ".join(image_name(image) for image in images[:8])
    more = f" and {len(images) - 8} more" if len(images) > 8 else ""
    raise NonFiniteError(
        f"the loss is {value} at {name}, on images {names}{more}. No checkpoint holds this "
        f"step. Resume from the last one with resume_from_checkpoint=FILE in another run_dir, "
        f"with a lower optimizer.lr, gradient_clip_val or precision=32; if the images are at "
        f"fault, fix them"
    )
