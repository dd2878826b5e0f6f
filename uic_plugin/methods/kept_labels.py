"""Labels in checkpoints: what is saved, and how a run goes on from it.

For methods with a bank; before a host's `BaseMethod`.
"""

from __future__ import annotations

from typing import Any

from uic_plugin.methods.base import HostMethod, OwnMethod
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

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add labels, epoch and options."""
        super().on_save_checkpoint(checkpoint)
        if self.bank is not None:
            checkpoint[CHECKPOINT_KEY] = {
                "method": self.name,
                "bank": self.bank.state_dict(),
                "more_banks": [bank.state_dict() for bank in self.more_banks],
                "options": self.options.as_dict(),
                "steps_done": self.steps_done,
                "telemetry": self.telemetry.sums.cpu() if self.telemetry is not None else None,
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
        self.steps_done = self.images_to_skip = 0
        if _is_within_epoch(checkpoint):
            # Lightning goes on at the batch where it stopped, but with a new iterator
            self._goes_on_within_epoch = True
            self.steps_done = int(state["steps_done"])
            self.images_to_skip = self.steps_done * self.batch_size
            if self.telemetry is not None and state.get("telemetry") is not None:
                self.telemetry.sums = state["telemetry"].clone()


def _is_within_epoch(checkpoint: dict[str, Any]) -> bool:
    """Whether Lightning will go on inside an epoch: it began one that it has not processed."""
    loop = checkpoint.get("loops", {}).get("fit_loop", {})
    epoch = loop.get("epoch_progress", {}).get("current", {})
    return bool(epoch.get("ready", 0) > epoch.get("processed", 0))
