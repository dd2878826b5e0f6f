"""Seconds and memory of a discovery on random features.

    python docs/examples/discover_scale.py 100000 --dims 384 --classes 30

Random features have no classes; time and memory do not depend on that. The features lie in a file
that is mapped into memory, as those of `uic embed` do.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np

from uic_plugin.discovery.search import discover
from uic_plugin.discovery.settings import DiscoverySettings
from uic_plugin.hardware import hardware, peak_memory

_BLOCK = 10_000


def main() -> None:
    """Print one line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("images", type=int)
    parser.add_argument("--dims", type=int, default=384)
    parser.add_argument("--classes", type=int, default=30)
    given = parser.parse_args()
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        shape = (given.images, given.dims)
        features = np.lib.format.open_memmap(Path(folder) / "x.npy", "w+", np.float16, shape)
        for first in range(0, given.images, _BLOCK):
            block = features[first : first + _BLOCK]
            block[:] = rng.standard_normal(block.shape)
        start, cpu, marks = time.perf_counter(), time.process_time(), {}

        def progress(title: str, done: int, total: int) -> None:
            marks[title] = (time.perf_counter() - start, time.process_time() - cpu)

        discover(features, given.classes, DiscoverySettings(), progress=progress)
        seconds, used = time.perf_counter() - start, time.process_time() - cpu
    print(
        f"{given.images:,} images of {given.dims}: {seconds:.0f} s ({used:.0f} CPU s; neighbours "
        f"until {marks['neighbours'][0]:.0f}, heads until {marks['heads'][0]:.0f}), "
        f"{peak_memory() / 2**30:.2f} GiB, {hardware()}"
    )


if __name__ == "__main__":
    main()
