"""The host's search for a checkpoint to resume from, without the damaged ones."""

from __future__ import annotations

import contextlib
import functools
import warnings
from pathlib import Path
from typing import Any

from uic_plugin.hosts.checkpoint_files import damage_of


def skip_damaged_checkpoints(resumer: Any) -> None:
    """Make the host's `AutoResumer` set aside, under another name, what cannot be read.

    Args:
        resumer: the class.
    """
    search = resumer.find_checkpoint
    if hasattr(search, "__wrapped__"):
        return

    @functools.wraps(search)
    def find_checkpoint(self: Any, settings: Any) -> Any:
        while True:
            found = search(self, settings)
            checkpoint = found[0] if isinstance(found, tuple) else found
            damage = damage_of(Path(checkpoint)) if checkpoint is not None else None
            if damage is None:
                return found
            aside = Path(f"{checkpoint}.damaged")
            warnings.warn(
                f"{checkpoint} is not resumed from: {damage}; kept as {aside.name}", stacklevel=2
            )
            with contextlib.suppress(FileNotFoundError):  # another rank may have been faster
                Path(checkpoint).replace(aside)

    resumer.find_checkpoint = find_checkpoint
