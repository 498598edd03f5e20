"""Bars of an hour and more: searched for in the price path once, then kept."""

from typing import NamedTuple

import numpy as np

from terminal_sim.market.clocks import WallClock
from terminal_sim.market.noise import Ints
from terminal_sim.market.prices import MINUTE_MS, Market
from terminal_sim.market.sums import Sums, opening
from terminal_sim.market.timeframes import DAY_S, MONTH, Span, opened

_LONGEST_MONTH_S = 31 * DAY_S
# Bars kept per process, at 64 bytes each: twice the most that one answer holds.
_KEPT = 200_000


class _Known(NamedTuple):
    """Bars found before: those between consecutive edges (UTC epoch minutes)."""

    edges: Ints
    sums: Sums


class LongBars:
    """The longer bars of one market on one server's clock.

    Args:
        market: The market.
        wall: The server's wall clock.
    """

    def __init__(self, market: Market, wall: WallClock) -> None:
        self.market = market
        self.wall = wall
        self._known: dict[tuple[str, Span], _Known] = {}

    def holding(self, symbol: str, length: Span, first: int, stop: int) -> list[Sums]:
        """Return the bars that hold the minutes ``[first, stop)``; the last ends at ``stop``."""
        edges = self._edges(length, first, stop)
        last, whole = edges[-2:], edges[:-1]
        parts = [self._whole(symbol, length, whole)] if whole.size > 1 else []
        parts.append(self._search(symbol, last))
        return parts

    def _whole(self, symbol: str, length: Span, edges: Ints) -> Sums:
        """Return the bars between edges, searching only for those not known yet."""
        known = self._known.pop((symbol, length), None)
        if known is None or known.edges[-1] < edges[0] or known.edges[0] > edges[-1]:
            known = _Known(edges, self._search(symbol, edges))
        else:
            earlier = edges[edges <= known.edges[0]]
            later = edges[edges >= known.edges[-1]]
            known = self._joined(symbol, earlier, known, later)
        first, stop = known.edges.searchsorted((edges[0], edges[-1])).tolist()
        wanted = Sums(*(column[first:stop] for column in known.sums))
        if known.edges.size > _KEPT:
            known = _Known(edges, Sums(*(column.copy() for column in wanted)))
        self._keep((symbol, length), known)
        return wanted

    def _joined(self, symbol: str, earlier: Ints, known: _Known, later: Ints) -> _Known:
        parts, edges = [known.sums], [known.edges]
        if earlier.size > 1:
            parts.insert(0, self._search(symbol, earlier))
            edges.insert(0, earlier[:-1])
        if later.size > 1:
            parts.append(self._search(symbol, later))
            edges.append(later[1:])
        columns = (np.concatenate(columns) for columns in zip(*parts, strict=True))
        return _Known(np.concatenate(edges), Sums(*columns))

    def _keep(self, name: tuple[str, Span], known: _Known) -> None:
        """Remember bars; those not asked for the longest go first."""
        kept = {**self._known, name: known}
        total = sum(each.edges.size for each in kept.values())
        for oldest in list(kept):
            if total <= _KEPT:
                break
            total -= kept.pop(oldest).edges.size
        self._known = kept

    def _search(self, symbol: str, edges: Ints) -> Sums:
        wall_s = self.wall.walls_ms(edges[:-1] * MINUTE_MS) // 1000
        return opening(wall_s, self.market.bars(symbol, edges))

    def _edges(self, length: Span, first: int, stop: int) -> Ints:
        """Return the minutes at which bars begin, from the one that holds ``first``; and ``stop``.

        A bar also begins where the clock is changed: its other part may lie elsewhere.
        """
        reach = 2 * (length or _LONGEST_MONTH_S) // 60
        parts = [np.array([stop], np.int64)]
        stretches = self.wall.stretches_ms((first - reach) * MINUTE_MS, stop * MINUTE_MS)
        for start_ms, stop_ms, offset_ms in stretches:
            open_s = _openings(length, start_ms + offset_ms, stop_ms + offset_ms)
            minutes = -(-(open_s * 1000 - offset_ms) // MINUTE_MS)
            parts.append(np.maximum(minutes, -(-start_ms // MINUTE_MS)))
        edges = np.unique(np.concatenate(parts))
        return edges[edges.searchsorted(first, side="right") - 1 : edges.searchsorted(stop) + 1]


def _openings(length: Span, first_ms: int, stop_ms: int) -> Ints:
    """Return when the bars open that hold the readings ``[first, stop)`` (wall seconds)."""
    first, last = opened(length, first_ms // 1000), opened(length, (stop_ms - 1) // 1000)
    if length != MONTH:
        return np.arange(first, last + length, length, dtype=np.int64)
    ends = np.array([first, last], "datetime64[s]").astype("datetime64[M]")
    months = np.arange(ends[0], ends[1] + 1)
    return months.astype("datetime64[s]").astype(np.int64)
