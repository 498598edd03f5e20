"""Price paths: sums of smooth waves, and how high and low they go, without walking every minute.

A path is a sum of octaves of value noise. Between two points of its lattice an octave only rises
or only falls, so within a block of ``4**n`` minutes the octaves that long or longer are highest at
one end of the block, and the shorter ones exceed nowhere their size. That bounds the path from a
few numbers, and blocks that cannot hold an extreme need not be looked at any closer.
"""

from typing import NamedTuple

import numpy as np

from terminal_sim.market.instruments import Factor, Instrument
from terminal_sim.market.noise import Floats, Ints, key, smooth

MINUTES_A_DAY = 1440
# Path noise is a sum of octaves 1, 4, 16 ... 4**11 minutes (eight years) long.
_OCTAVES = 12
# Added to bounds: far more than sums of a few numbers below 1 can lose to rounding, and far less
# than a point of any price.
_ROUNDING = 1e-12


class Wave(NamedTuple):
    """One octave of a factor; ``size`` is the highest it goes, as a logarithm of the price."""

    stream: np.uint64
    octave: int
    size: float


class Bounds(NamedTuple):
    """Pieces of a path, one item a piece, in points.

    Attributes:
        first: The price at its start.
        last: The price at its end.
        top: No price in the piece is higher.
        bottom: No price in the piece is lower.
    """

    first: Ints
    last: Ints
    top: Ints
    bottom: Ints


class Path:
    """The price of one symbol at the boundaries between minutes.

    Args:
        seed: Of the market.
        instrument: Whose price.
    """

    def __init__(self, seed: int, instrument: Instrument) -> None:
        self._scale = instrument.price * instrument.scale
        self._factors = [(factor.sign, _waves(seed, factor)) for factor in instrument.factors]

    def at(self, minute: Ints) -> Ints:
        """Return the price in points at the start of UTC epoch minutes."""
        path = np.zeros(minute.shape)
        for sign, waves in self._factors:
            path += sign * sum_of(waves, minute)
        return self._points(path)

    def bounds(self, start: Ints, stop: Ints, octave: int) -> Bounds:
        """Return bounds of ascending pieces ``[start, stop]`` that lie in one ``4**octave`` each.

        Prices at both ends are among the prices of a piece.
        """
        points, left = _ends(start, stop)
        path, low, high = (np.zeros(size) for size in (points.size, left.size, left.size))
        for sign, waves in self._factors:
            total = np.zeros(points.size)
            for wave in waves:
                value = wave.size * smooth(wave.stream, points, 2 * wave.octave)
                total += value
                if wave.octave < octave:
                    low -= wave.size
                    high += wave.size
                else:
                    one, two = sign * value[left], sign * value[left + 1]
                    low += np.minimum(one, two)
                    high += np.maximum(one, two)
            path += sign * total
        price = self._points(path)
        top, bottom = self._points(high + _ROUNDING), self._points(low - _ROUNDING)
        return Bounds(price[left], price[left + 1], top, bottom)

    def _points(self, path: Floats) -> Ints:
        """Turn logarithms into points; every operation is monotonic, also in its rounding."""
        grown = 1.0 + path / 1024.0
        for _ in range(10):  # (1 + x/1024)**1024: an exponential made of exact operations
            grown *= grown
        return np.rint(grown * self._scale).astype(np.int64)


def sum_of(waves: list[Wave], minute: Ints) -> Floats:
    """Return the sum of a factor's waves at UTC epoch minutes."""
    path = np.zeros(minute.shape)
    for wave in waves:
        path += wave.size * smooth(wave.stream, minute, 2 * wave.octave)
    return path


def _waves(seed: int, factor: Factor) -> list[Wave]:
    turn = MINUTES_A_DAY * (factor.reach / factor.daily) ** 2
    waves = []
    for octave in range(_OCTAVES):
        length = float(4**octave)
        size = factor.daily * (length / MINUTES_A_DAY / (1.0 + length / turn)) ** 0.5
        waves.append(Wave(key(seed, factor.name, octave), octave, size))
    return waves


def _ends(start: Ints, stop: Ints) -> tuple[Ints, Ints]:
    """Return the ends of ascending pieces, shared ones once, and where each piece's start is."""
    left = np.arange(start.size, dtype=np.int64)
    left[1:] += np.cumsum(stop[:-1] != start[1:])
    points = np.empty(int(left[-1]) + 2, np.int64)
    points[left] = start
    points[left + 1] = stop
    return points, left
