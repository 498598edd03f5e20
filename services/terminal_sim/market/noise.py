"""Hashed noise: numbers that look random and depend on nothing but a key and an index.

Only additions, multiplications and shifts are used, so every processor gets the same bits.
"""

from hashlib import blake2b
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Ints: TypeAlias = npt.NDArray[np.int64]
Floats: TypeAlias = npt.NDArray[np.float64]
Words: TypeAlias = npt.NDArray[np.uint64]

# The increment and multipliers of splitmix64: they pass the usual statistical batteries.
_STEP = np.uint64(0x9E3779B97F4A7C15)
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)
# 2**-53: turns the upper 53 bits of a word into every double of [0, 1) with equal weight.
_UNIT = 2.0**-53


def key(*parts: int | str) -> np.uint64:
    """Return a 64-bit key of the parts; the same on every machine and in every process."""
    text = "\0".join(str(part) for part in parts).encode()
    return np.uint64(int.from_bytes(blake2b(text, digest_size=8).digest(), "little"))


def words(stream: np.uint64, index: Ints) -> Words:
    """Return a hashed word for each index of a stream."""
    word = index.astype(np.uint64)
    word *= _STEP
    word += stream
    word ^= word >> np.uint64(30)
    word *= _FIRST
    word ^= word >> np.uint64(27)
    word *= _SECOND
    word ^= word >> np.uint64(31)
    return word


def units(stream: np.uint64, index: Ints) -> Floats:
    """Return a number in [0, 1) for each index of a stream."""
    number: Floats = (words(stream, index) >> np.uint64(11)).astype(np.float64) * _UNIT
    return number


def bits(word: Words, low: int, count: int) -> Floats:
    """Return ``count`` bits of each word from bit ``low`` on, as a number in [0, 1)."""
    mask = np.uint64((1 << count) - 1)
    number: Floats = ((word >> np.uint64(low)) & mask).astype(np.float64) * 2.0**-count
    return number


def smooth(stream: np.uint64, index: Ints, shift: int) -> Floats:
    """Return value noise in [-1, 1) whose lattice points lie ``2**shift`` apart.

    Neighbouring lattice values are joined by a smooth step. The result does not depend on which
    other indices are asked for at the same time.
    """
    if shift == 0:
        return _signed(stream, index)
    cell = index >> shift
    first, last = int(cell.min()), int(cell.max())
    part = (index & ((1 << shift) - 1)) * 2.0**-shift
    weight: Floats = part * part * (3.0 - 2.0 * part)
    if last - first < 2 * index.size:
        lattice = _signed(stream, np.arange(first, last + 2, dtype=np.int64))
        where = cell - first if last > first else np.zeros(1, np.int64)
        left, rise = lattice[where], np.diff(lattice)[where]
    else:
        left = _signed(stream, cell)
        rise = _signed(stream, cell + 1) - left
    weight *= rise
    weight += left
    return weight


def _signed(stream: np.uint64, index: Ints) -> Floats:
    number: Floats = 2.0 * units(stream, index) - 1.0
    return number
