"""Numbers of a device for the CPU, read when they have arrived: nobody waits for them.

loss_shown = Readout()
loss_shown.offer(loss)               # in every step
print(loss_shown.latest)             # of a step before, on a GPU; of this one on the CPU
"""

from __future__ import annotations

import numpy as np
import torch


class Readout:
    """Brings numbers of a GPU to the CPU in the background.

    On the CPU they are there at once, on a GPU some steps later. On other devices there is no copy
    in the background, and reading waits.

    Attributes:
        latest: the newest numbers that have arrived, float64; None before the first. `poll` looks
            for newer ones.
        count: how many offers these numbers answer, the last of which is theirs.
    """

    def __init__(self) -> None:
        self.latest: np.ndarray | None = None
        self.count = 0
        self._offers = 0
        self._asked = 0  # the offer that is on its way
        self._event: torch.cuda.Event | None = None
        self._buffer: torch.Tensor | None = None

    def offer(self, values: torch.Tensor) -> None:
        """Bring these numbers, unless earlier ones are still on their way.

        Args:
            values: of any shape, always the same one.
        """
        self._offers += 1
        values = values.detach()
        if values.device.type != "cuda":
            here = values if values.device.type == "cpu" else values.cpu()
            if here.dtype == torch.bfloat16:
                here = here.float()
            self.latest, self.count = here.numpy().astype(np.float64), self._offers
            return
        self.poll()
        if self._event is not None:
            return
        if self._buffer is None:
            self._buffer = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
        self._buffer.copy_(values, non_blocking=True)
        self._event = torch.cuda.Event()
        self._event.record()
        self._asked = self._offers

    def poll(self) -> np.ndarray | None:
        """Return the newest numbers that have arrived; None before the first."""
        if self._event is not None and self._buffer is not None and self._event.query():
            self.latest = self._buffer.double().numpy().copy()  # integers above 2^24 exactly, too
            self.count, self._event = self._asked, None
        return self.latest
