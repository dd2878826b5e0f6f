"""The header of a `.npy` file that grows: its length is fixed, so that it can be written again."""

from __future__ import annotations

import numpy as np

HEADER_BYTES = 128


def npy_header(kind: np.dtype, shape: tuple[int, ...]) -> bytes:
    """Return numpy's header of version 1.0 for an array in C order, in `HEADER_BYTES` bytes."""
    facts = {"descr": kind.str, "fortran_order": False, "shape": shape}
    start = np.lib.format.magic(1, 0) + (HEADER_BYTES - 10).to_bytes(2, "little")
    return start + repr(facts).encode().ljust(HEADER_BYTES - 11) + b"\n"
