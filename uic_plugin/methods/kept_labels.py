"""Labels in checkpoints: what is saved, and how a run goes on from it.

For methods with a bank; before a host's `BaseMethod`.
"""

from __future__ import annotations

import warnings
from typing import Any

from uic_plugin.methods.base import HostMethod, OwnMethod
from uic_plugin.methods.ranks import barrier, sum_over_ranks, world_size
from uic_plugin.pseudo_labels import EpochTelemetry, PseudoLabelBank

CHECKPOINT_KEY = "uic"


class KeptLabels(OwnMethod, HostMethod):
    """Saves and restores banks, epoch, telemetry and the place within an epoch.

    Attributes:
        bank: of the first head; None before the dataset is known.
        more_banks: of the second head and those after it.
        telemetry: of the present epoch.
        steps_done: steps of the bank's present epoch. Lightning's own number of the batch does not
            do: version 1 repeats one after a resume from a checkpoint that a callback wrote at the
            end of a batch.
        images_to_skip: of this rank, in the first epoch after a resume within it.
    """

    bank: PseudoLabelBank | None = None
    more_banks: tuple[PseudoLabelBank, ...] = ()
    telemetry: EpochTelemetry | None = None
    steps_done = 0
    images_to_skip = 0
    _goes_on_within_epoch = False

    @property
    def banks(self) -> tuple[PseudoLabelBank, ...]:
        """Of all heads."""
        return () if self.bank is None else (self.bank, *self.more_banks)

    def wait_for_writers(self) -> None:
        """Wait until labels that ranks share are written."""
        if any(bank.storage == "mmap" for bank in self.banks):
            barrier()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add labels, epoch and options; on the first rank, which writes the file."""
        super().on_save_checkpoint(checkpoint)
        telemetry = None
        if self.telemetry is not None:  # of all ranks together
            telemetry = sum_over_ranks(self.telemetry.sums.to(self.device, copy=True)).cpu()
        if self.bank is not None and self.global_rank == 0:
            checkpoint[CHECKPOINT_KEY] = {
                "method": self.name,
                "bank": self.bank.state_dict(),
                "more_banks": [bank.state_dict() for bank in self.more_banks],
                "options": self.options.as_dict(),
                "steps_done": self.steps_done,
                "batch_size": self.batch_size,
                "world_size": world_size(),
                "telemetry": telemetry,
            }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take over labels and epoch; without a dataset (evaluation) weights alone are loaded.

        Raises:
            ValueError: if training is to go on from a checkpoint without pseudo labels, or with
                labels of another dataset.
        """
        super().on_load_checkpoint(checkpoint)
        if self.bank is None:
            return
        if CHECKPOINT_KEY not in checkpoint:
            raise ValueError(
                "the checkpoint holds no pseudo labels, so another method wrote it: "
                "resume it with that method, or start anew"
            )
        state = checkpoint[CHECKPOINT_KEY]
        self.bank.load_state_dict(state["bank"])
        for bank, saved in zip(self.more_banks, state.get("more_banks", ()), strict=True):
            bank.load_state_dict(saved)
        self.wait_for_writers()
        self.steps_done = self.images_to_skip = 0
        # With no step behind it the epoch has turned already: written between its last step and
        # its end, as in a validation, after which Lightning goes on by itself.
        if is_within_epoch(checkpoint) and int(state["steps_done"]):
            # Lightning goes on at the batch where it stopped, but with a new iterator
            self._goes_on_within_epoch = True
            self.steps_done = int(state["steps_done"])
            if self.telemetry is not None and state.get("telemetry") is not None:
                is_first = self.global_rank == 0  # the others have nothing to add
                self.telemetry.sums = state["telemetry"].clone() * int(is_first)
        self._go_on_with_other_ranks(state)
        if self._goes_on_within_epoch:
            # Saved in a callback, the last batch counts as begun but not as completed. Lightning
            # 1.9 would count it once more, and an epoch whose end it does not see moves no
            # schedule; later versions complete it themselves.
            completes = hasattr(self.trainer.fit_loop.epoch_loop, "update_restart_stage")
            progress = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]["current"]
            progress.update(dict.fromkeys(progress, self.steps_done))
            progress["completed"] -= int(completes)
        self.images_to_skip = self.steps_done * self.batch_size

    def _go_on_with_other_ranks(self, state: dict[str, Any]) -> None:
        """Translate the place within an epoch to the present ranks and batch size."""
        now = world_size()
        before, batch_before = state.get("world_size", now), state.get("batch_size")
        if before != now:
            warnings.warn(
                f"the checkpoint was written by {before} rank{'s' * (before > 1)}, this run has "
                f"{now}: labels are kept, but images meet in other batches, so that the run no "
                f"longer equals one without the change",
                stacklevel=2,
            )
        together, together_before = self.batch_size * now, (batch_before or 0) * before
        if not self.steps_done or batch_before is None or together == together_before:
            return
        images = self.steps_done * together_before
        batches = len(self.banks[0]) // now // self.batch_size
        # the last step is left to do: the epoch turns in it
        self.steps_done = max(0, min(images // together, batches - 1))


def is_within_epoch(checkpoint: dict[str, Any]) -> bool:
    """Whether Lightning will go on inside an epoch: it began one that it has not processed."""
    loop = checkpoint.get("loops", {}).get("fit_loop", {})
    epoch = loop.get("epoch_progress", {}).get("current", {})
    return bool(epoch.get("ready", 0) > epoch.get("processed", 0))
