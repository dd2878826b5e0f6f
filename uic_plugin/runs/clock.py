"""How long an epoch and its steps take, on the wall's clock and on the processor's."""

from __future__ import annotations

import time


class EpochClock:
    """Times an epoch and the steps in it.

    The processor's seconds are those of this process alone: other work on the machine adds nothing
    to them, and neither do loaders' workers.
    """

    def __init__(self) -> None:
        self.start()

    def start(self, spent: dict[str, float] | None = None) -> None:
        """Start an epoch, or continue one.

        Args:
            spent: what `spent` returned, of the part that another process has behind it.
        """
        self._before = spent or {"seconds": 0.0, "cpu_seconds": 0.0, "steps": 0}
        self._wall, self._cpu = time.perf_counter(), time.process_time()
        self._steps = 0
        self._first = self._last = self._last_but_one = (0.0, 0.0)

    def step(self) -> None:
        """Note that a step has ended."""
        self._last_but_one, self._last = self._last, (time.perf_counter(), time.process_time())
        if self._steps == 0:
            self._first = self._last
        self._steps += 1

    def spent(self) -> dict[str, float]:
        """Return `seconds` and `cpu_seconds` of the epoch so far, and its `steps`."""
        wall, cpu = time.perf_counter() - self._wall, time.process_time() - self._cpu
        own = {"seconds": wall, "cpu_seconds": cpu, "steps": self._steps}
        return {name: round(value + self._before[name], 3) for name, value in own.items()}

    def read(self) -> dict[str, float]:
        """Return what `spent` does, and the time of a step.

        `step_seconds` and `step_cpu_seconds` are means between the ends of two successive steps,
        without the first step, which warms up, and the last, in which an epoch boundary may lie;
        0 with fewer than four steps.
        """
        read = self.spent()
        steps = self._steps - 2
        if steps > 1:
            first, last = self._first, self._last_but_one
            read["step_seconds"] = round((last[0] - first[0]) / steps, 6)
            read["step_cpu_seconds"] = round((last[1] - first[1]) / steps, 6)
        else:
            read.update(step_seconds=0.0, step_cpu_seconds=0.0)
        return read
