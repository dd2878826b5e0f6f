"""The Lightning that the installed host trains with, under one name.

    from uic_plugin.hosts.lightning import pl     # pl.Callback, pl.Trainer, pl.loggers, ...

solo-learn main imports `lightning.pytorch`, solo-learn 1.0.2 `pytorch_lightning`. A callback of the
one is no callback to the other, so nothing else in this package imports either.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytorch_lightning as pl
else:
    from solo.methods.base import pl

__all__ = ["pl"]
