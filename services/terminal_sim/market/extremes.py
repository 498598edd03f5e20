"""Bars of any length straight from the path: exact, and without visiting all of their minutes.

A search for each bar's highest and lowest minute. It cuts bars into blocks, leaves out blocks
whose bounds say that they cannot hold an extreme, and cuts the rest again, down to minutes.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from terminal_sim.market.noise import Ints
from terminal_sim.market.paths import Path

# Blocks of the first cut: the largest that still leave about a dozen to a bar.
_BLOCKS_A_BAR = 12
_LARGEST_OCTAVE = 5
# Blocks searched together: their arrays stay below the size that malloc maps afresh each time.
_BLOCKS_AT_A_TIME = 8192
# Minutes of a bar looked at in each round of the search for its smallest spread.
_ROUND = 64


class Pieces(NamedTuple):
    """Spans of minutes ``[start, stop)`` in ascending order, and which bar each belongs to."""

    start: Ints
    stop: Ints
    bar: Ints


Wicks = Callable[[Ints, Ints, Ints], tuple[Ints, Ints]]
"""Highs and lows of minutes, of their number, open and close."""


def extremes(path: Path, edges: Ints, wick: int, wicks: Wicks) -> tuple[Ints, Ints]:
    """Return the highs and lows, in points, of the bars between consecutive edges.

    Args:
        path: Price at the boundaries of minutes.
        edges: UTC epoch minutes, strictly ascending.
        wick: How far a minute's extremes may lie from its open and close, in points.
        wicks: Gives the extremes of minutes.
    """
    octave = _first_octave(int(edges[-1] - edges[0]) / (edges.size - 1))
    # Cut at the edges of every so many blocks, so that what is worked on stays in the cache.
    blocks = (edges - edges[0]) >> (2 * octave)
    batches = np.unique(np.flatnonzero(np.diff(blocks // _BLOCKS_AT_A_TIME, prepend=-1)))
    limits = [*batches.tolist(), edges.size - 1]
    found = [
        _extremes(path, edges[first : stop + 1], octave, wick, wicks)
        for first, stop in pairwise(limits)
        if first < stop
    ]
    high, low = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return high, low


def _extremes(path: Path, edges: Ints, octave: int, wick: int, wicks: Wicks) -> tuple[Ints, Ints]:
    high = path.at(edges[:-1])
    low = high.copy()
    pieces = _cut(Pieces(edges[:-1], edges[1:], np.arange(high.size)), octave)
    while pieces.bar.size:
        bounds = path.bounds(pieces.start, pieces.stop, octave)
        if octave == 0:
            _stretch(high, low, pieces.bar, wicks(pieces.start, bounds.first, bounds.last))
            break
        # What the first and last minute of each piece reach at least.
        _stretch(high, low, pieces.bar, wicks(pieces.start, bounds.first, bounds.first))
        _stretch(high, low, pieces.bar, wicks(pieces.stop - 1, bounds.last, bounds.last))
        above, below = _reach(pieces, wicks) if octave == 1 else (wick, -wick)
        hopeful = (bounds.top + above > high[pieces.bar]) | (
            bounds.bottom + below < low[pieces.bar]
        )
        octave -= 1
        pieces = _cut(Pieces(*(column[hopeful] for column in pieces)), octave)
    return high, low


def _reach(pieces: Pieces, wicks: Wicks) -> tuple[Ints, Ints]:
    """Return the longest wicks, upwards and (negative) downwards, of pieces of up to 4 minutes."""
    above, below = np.zeros((2, pieces.start.size), np.int64)
    level = np.zeros_like(above)
    for step in range(4):
        reached = wicks(np.minimum(pieces.start + step, pieces.stop - 1), level, level)
        np.maximum(above, reached[0], out=above)
        np.minimum(below, reached[1], out=below)
    return above, below


def _stretch(high: Ints, low: Ints, bar: Ints, reached: tuple[Ints, Ints]) -> None:
    np.maximum.at(high, bar, reached[0])
    np.minimum.at(low, bar, reached[1])


def smallest(value: Callable[[Ints], Ints], edges: Ints, floor: int) -> Ints:
    """Return the smallest value of a minute in each bar; a bar is done once it meets the floor.

    Args:
        value: Values of minutes, none below the floor.
        edges: UTC epoch minutes, strictly ascending.
        floor: The smallest value there can be.
    """
    found = value(edges[:-1])
    left = np.flatnonzero(found > floor)
    start, size = edges[:-1], _ROUND
    while left.size:
        stop = np.minimum(start[left] + size, edges[left + 1])
        minute, owner = _minutes(start[left], stop)
        np.minimum.at(found, left[owner], value(minute))
        start = start + size
        left = left[(found[left] > floor) & (start[left] < edges[left + 1])]
        size *= 2
    return found


def _first_octave(minutes: float) -> int:
    octave = 0
    while octave < _LARGEST_OCTAVE and 4 ** (octave + 1) * _BLOCKS_A_BAR <= minutes:
        octave += 1
    return octave


def _cut(pieces: Pieces, octave: int) -> Pieces:
    """Cut pieces wherever a block of ``4**octave`` minutes begins."""
    shift = 2 * octave
    first, last = pieces.start >> shift, (pieces.stop - 1) >> shift
    owner = np.repeat(np.arange(first.size), last - first + 1)
    block = _counted(first, last + 1)
    start = np.maximum(block << shift, pieces.start[owner])
    stop = np.minimum((block + 1) << shift, pieces.stop[owner])
    return Pieces(start, stop, pieces.bar[owner])


def _minutes(start: Ints, stop: Ints) -> tuple[Ints, Ints]:
    """Return every minute of the spans, and which span it belongs to."""
    return _counted(start, stop), np.repeat(np.arange(start.size), stop - start)


def _counted(start: Ints, stop: Ints) -> Ints:
    length = stop - start
    ends = np.cumsum(length)
    total = int(ends[-1]) if ends.size else 0
    steps: Ints = np.arange(total, dtype=np.int64) + np.repeat(start - ends + length, length)
    return steps
