"""The Lightning that the installed host trains with, under one name.

    from uic_plugin.hosts.lightning import pl     # pl.Callback, pl.Trainer, pl.loggers, ...

solo-learn main imports `lightning.pytorch`, solo-learn 1.0.2 and lightly `pytorch_lightning`. A
callback of the one is no callback to the other, so nothing else in this package imports either.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from uic_plugin.hosts.detect import HostError, find_host

if TYPE_CHECKING:
    import pytorch_lightning as pl
else:
    _NAME = "lightning" if find_host().line == "main" else "pytorch-lightning"
    try:
        if _NAME == "lightning":
            import lightning.pytorch as pl
        else:
            import pytorch_lightning as pl
    except ImportError as error:
        raise HostError(f"{_NAME} cannot be imported ({error}): run 'uic doctor'") from error

__all__ = ["pl"]
