"""Guards of every training: whole checkpoint files, and a stop at a loss that is NaN.

Also under the host's own scripts, where no run of ours is around.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch

from uic_plugin.errors import NonFiniteError
from uic_plugin.files import replacing
from uic_plugin.hosts.lightning import pl


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


class FiniteLoss(pl.Callback):
    """Stops a run at a loss that is NaN or infinite, before it reaches weights or a checkpoint."""

    def __init__(self) -> None:
        self._images: Any = None

    def on_train_batch_start(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        batch: Any,
        batch_idx: int,
        *_: Any,
    ) -> None:
        """Remember whose loss it will be."""
        is_ours = isinstance(batch, (list, tuple)) and isinstance(batch[0], torch.Tensor)
        self._images = batch[0] if is_ours and batch[0].ndim == 1 else None

    def on_before_backward(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: torch.Tensor
    ) -> None:
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
            f"step. Resume from the last one with resume_from_checkpoint=FILE in another run_dir, "
            f"with a lower optimizer.lr, gradient_clip_val or precision=32; if the images are at "
            f"fault, mend them"
        )
