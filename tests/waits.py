"""Counts what would wait for the device in a training step, on a CPU where nothing waits.

with Waits() as waits:
    step()
assert waits.found == []
"""

from contextlib import contextmanager

import torch
from torch.utils._python_dispatch import TorchDispatchMode

# operations whose answer, or whose answer's shape, the CPU needs before it can continue
_NAMES = {
    "aten::_local_scalar_dense",  # .item(), float(), bool(), .tolist() of one number
    "aten::nonzero",
    "aten::masked_select",
    "aten::equal",
    "aten::bincount",
    "aten::_unique2",
    "aten::unique_dim",
    "aten::unique_consecutive",
    "aten::repeat_interleave.Tensor",
    "c10d::barrier",
}
_INDEXING = ("aten::index.Tensor", "aten::index_put", "aten::_index_put_impl")


class Waits(TorchDispatchMode):
    """Notes every operation that would wait.

    Attributes:
        found: names of the operations, in their order.
    """

    def __init__(self):
        super().__init__()
        self.found = []
        self._is_paused = False

    @contextmanager
    def paused(self):
        """Leave out what happens meanwhile, as reading images."""
        self._is_paused = True
        try:
            yield
        finally:
            self._is_paused = False

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if not self._is_paused and _waits(function, args, kwargs):
            self.found.append(str(function.name()))
        return function(*args, **kwargs)


def _waits(function, args, kwargs):
    name = function.name()
    if name in _NAMES or name.split(".")[0] in _NAMES:
        return True
    if name.startswith(_INDEXING):  # a mask is looked through for its indices
        masks = (torch.bool, torch.uint8)
        return any(each is not None and each.dtype in masks for each in args[1])
    if name.startswith("aten::_to_copy"):
        device = kwargs.get("device")
        moves = device is not None and torch.device(device).type != args[0].device.type
        return moves and not kwargs.get("non_blocking")
    if name.startswith("aten::copy_"):
        is_async = kwargs.get("non_blocking") or (len(args) > 2 and args[2])
        return args[0].device.type != args[1].device.type and not is_async
    return False


def counting(pl, counted):
    """Return a callback that counts in every step of a training, Lightning's own part included.

    Args:
        pl: the host's Lightning.
        counted: gets (epoch, batch, is last of its epoch, operations found) of every step.
    """

    class Count(pl.Callback):
        def on_train_start(self, trainer, module):
            loop = trainer.fit_loop.epoch_loop
            advance = loop.advance

            def watched(fetcher):
                waits = Waits()
                kind = type(fetcher)
                fetch = kind.__next__

                def paused(self):
                    with waits.paused():
                        return fetch(self)

                kind.__next__ = paused
                try:
                    with waits:
                        advance(fetcher)
                finally:
                    kind.__next__ = fetch
                    batch = loop.batch_idx
                    is_last = batch + 1 >= trainer.num_training_batches
                    counted.append((trainer.current_epoch, batch, is_last, waits.found))

            loop.advance = watched

    return Count()
