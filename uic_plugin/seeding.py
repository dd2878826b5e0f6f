"""One rule for every random draw: a generator seeded by (seed, purpose, epoch, rank, ...)."""

from __future__ import annotations

import zlib

import numpy as np
import torch

_MASK = (1 << 64) - 1


def derive_seed(seed: int, purpose: str, *parts: int) -> int:
    """Mix a run's seed, what the draws are for, and counters (epoch, rank, ...) into one seed.

    Returns:
        An integer in [0, 2**63), equal on every machine for equal arguments.
    """
    entropy = (seed & _MASK, zlib.crc32(purpose.encode()), *(part & _MASK for part in parts))
    return int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0] >> np.uint64(1))


def make_generator(seed: int, purpose: str, *parts: int) -> torch.Generator:
    """Return a CPU generator for one purpose, at one point of the run (see `derive_seed`)."""
    return torch.Generator().manual_seed(derive_seed(seed, purpose, *parts))


def seed_step(seed: int) -> None:
    """Seed torch's global generators, for the draws of a training step (dropout).

    The same as `torch.manual_seed` wherever a device is in use. That notes for each device that is
    not in use where it was called, which costs milliseconds, in every step.
    """
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(seed)
    if torch.backends.mps.is_available():
        torch.mps.manual_seed(seed)
    if torch.xpu.is_initialized():
        torch.xpu.manual_seed_all(seed)
