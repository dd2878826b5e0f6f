"""Resume within an epoch: what Lightning needs so that its loops and a method's labels agree.

A method tells how many steps of the epoch are done; Lightning's own counters in the checkpoint are
set to that number before its loops read them.
"""

from __future__ import annotations

from typing import Any

from uic_plugin.methods import CHECKPOINT_KEY
from uic_plugin.methods.kept_labels import KeptLabels


def resume_labels(method: Any, checkpoint: dict[str, Any]) -> None:
    """Let a method take over its labels, and Lightning resume at the same step.

    Args:
        method: a hosted method with its `trainer`; one without pseudo labels is left as it is.
        checkpoint: as Lightning read it; its loops' progress is changed in place.

    Raises:
        ValueError: if the checkpoint's labels are missing or of another dataset.
    """
    if not isinstance(method, KeptLabels):
        return
    steps = method.load_labels(
        checkpoint.get(CHECKPOINT_KEY), is_within_epoch=is_within_epoch(checkpoint)
    )
    if steps is not None:
        _set_batch_progress(checkpoint, steps, method.trainer.fit_loop.epoch_loop)


def is_within_epoch(checkpoint: dict[str, Any]) -> bool:
    """Tell whether Lightning will resume inside an epoch that it began and has not processed."""
    loop = checkpoint.get("loops", {}).get("fit_loop", {})
    epoch = loop.get("epoch_progress", {}).get("current", {})
    return bool(epoch.get("ready", 0) > epoch.get("processed", 0))


def _set_batch_progress(checkpoint: dict[str, Any], steps: int, epoch_loop: Any) -> None:
    """Have the loop over batches resume after so many.

    Saved in a callback, the last batch counts as begun but not as completed. Lightning 1.9 would
    count it once more, and an epoch whose end it does not see moves no schedule; later versions
    complete it themselves.
    """
    completes = hasattr(epoch_loop, "update_restart_stage")
    progress = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]["current"]
    progress.update(dict.fromkeys(progress, steps))
    progress["completed"] -= int(completes)
