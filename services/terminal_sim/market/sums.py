"""Bars in points under the times they open at, while they are put together."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from terminal_sim.market.minutes import Minutes
from terminal_sim.market.noise import Ints


class Sums(NamedTuple):
    """Bars in points, one item a bar; ``open_s`` may repeat until :func:`merged`."""

    open_s: Ints
    open: Ints
    high: Ints
    low: Ints
    close: Ints
    ticks: Ints
    spread: Ints


def merged(sums: Sums) -> Sums:
    """Return one bar for each opening time, ascending; rows of a bar keep their order."""
    if not sums.open_s.size:
        return sums
    if np.any(np.diff(sums.open_s) < 0):
        order = np.argsort(sums.open_s, kind="stable")
        sums = Sums(*(column[order] for column in sums))
    fresh: npt.NDArray[np.bool_] = np.diff(sums.open_s, prepend=sums.open_s[0] - 1) > 0
    starts = np.flatnonzero(fresh)
    ends = np.append(starts[1:], sums.open_s.size) - 1
    return Sums(
        open_s=sums.open_s[starts],
        open=sums.open[starts],
        high=np.maximum.reduceat(sums.high, starts),
        low=np.minimum.reduceat(sums.low, starts),
        close=sums.close[ends],
        ticks=np.add.reduceat(sums.ticks, starts),
        spread=np.minimum.reduceat(sums.spread, starts),
    )


def opening(open_s: Ints, bars: Minutes) -> Sums:
    """Return bars under their opening times."""
    return Sums(open_s, bars.open, bars.high, bars.low, bars.close, bars.ticks, bars.spread)
