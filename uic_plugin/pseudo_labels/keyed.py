"""Random permutations that are computed, not stored: any part of a shuffled [0, N) on its own.

    permutation = KeyedPermutation(10**9, key=7)
    permutation(np.arange(1000, dtype=np.uint64))      # what the first 1000 become

An unbalanced Feistel network permutes [0, 2 ** b), the smallest such range that holds [0, N);
what falls outside is put through it again until it is within ("cycle walking"). Of few numbers
the permutation is kept after all: halves of few bits make a poor network.
Source: Black and Rogaway, Ciphers with arbitrary finite domains, 2002, sections 4 and 5.
"""

from __future__ import annotations

from typing import Any

import numpy as np

_ROUNDS = 6
# of the 32-bit finaliser of MurmurHash3
_MULTIPLIER_1, _MULTIPLIER_2 = np.uint32(0x85EBCA6B), np.uint32(0xC2B2AE35)
_SHIFT_1, _SHIFT_2 = np.uint32(15), np.uint32(13)
_KEPT = 1 << 16  # the most numbers whose permutation is kept
_BLOCK = 1 << 15  # numbers at once: they and their scratch stay in a processor's cache

Numbers = np.ndarray[Any, Any]


class KeyedPermutation:
    """A permutation of [0, N) that a key picks; a number takes about 30 ns, up to 60.

    Args:
        count: size N, from 1 to 2 ** 63.
        key: any integer; another key is another permutation.

    Raises:
        ValueError: for a count out of range.
    """

    def __init__(self, count: int, key: int) -> None:
        if not 1 <= count <= 1 << 63:
            raise ValueError(f"a permutation needs 1 to 2 ** 63 numbers, got {count}")
        self.count = count
        self._kept: Numbers | None = None
        if count <= _KEPT:
            self._kept = np.random.default_rng(key).permutation(count).astype(np.uint64)
        bits = max(2, (count - 1).bit_length())
        self._low_bits = bits // 2
        self._low_mask = np.uint32((1 << self._low_bits) - 1)
        self._high_mask = np.uint32((1 << (bits - self._low_bits)) - 1)
        # the halves of a number above 2 ** 32 are put together in 64 bits
        self._kind = np.uint32 if bits <= 32 else np.uint64
        keys = np.random.SeedSequence(key).generate_state(_ROUNDS, np.uint32)
        self._keys = [np.uint32(part) for part in keys]

    def __call__(self, numbers: Numbers) -> Numbers:
        """Return what numbers become, (n,) uint64, for numbers (n,) below N of any integer type."""
        if self._kept is not None:
            found: Numbers = self._kept[numbers.astype(np.int64)]
            return found
        result = np.empty(len(numbers), np.uint64)
        for first in range(0, len(numbers), _BLOCK):
            block = self._once(numbers[first : first + _BLOCK].astype(self._kind))
            outside = np.flatnonzero(block >= self.count)
            while outside.size:
                walked = self._once(block[outside])
                block[outside] = walked
                outside = outside[walked >= self.count]
            result[first : first + _BLOCK] = block
        return result

    def _once(self, numbers: Numbers) -> Numbers:
        """Put numbers once through the network."""
        shift = self._kind(self._low_bits)
        low = (numbers & self._kind(self._low_mask)).astype(np.uint32, copy=False)
        high = (numbers >> shift).astype(np.uint32, copy=False)
        mixed, shifted = np.empty_like(low), np.empty_like(low)
        for number, key in enumerate(self._keys):
            own, other, mask = high, low, self._high_mask
            if number % 2:
                own, other, mask = low, high, self._low_mask
            np.add(other, key, out=mixed)
            mixed *= _MULTIPLIER_1
            np.right_shift(mixed, _SHIFT_1, out=shifted)
            mixed ^= shifted
            mixed *= _MULTIPLIER_2
            np.right_shift(mixed, _SHIFT_2, out=shifted)
            mixed ^= shifted
            mixed &= mask
            own ^= mixed
        joined: Numbers = np.left_shift(high.astype(self._kind, copy=False), shift)
        joined |= low
        return joined


def drawn(numbers: Numbers, counts: Numbers, key: int) -> Numbers:
    """Return an independent draw from [0, count) for each number and key.

    Args:
        numbers: (n,) uint64, whose draws differ.
        counts: (n,) sizes of the ranges, at most 2 ** 53.
        key: below 2 ** 64.

    Returns:
        (n,) int64.
    """
    # SplitMix64 (Steele, Lea and Flood, 2014)
    mixed = numbers * np.uint64(0x9E3779B97F4A7C15) + np.uint64(key)
    for shift, multiplier in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed ^= mixed >> np.uint64(shift)
        mixed *= np.uint64(multiplier)
    mixed ^= mixed >> np.uint64(31)
    return ((mixed >> np.uint64(11)) * 2.0**-53 * counts).astype(np.int64)
