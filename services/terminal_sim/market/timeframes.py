"""The 21 timeframes as spans of the broker's wall clock."""

from datetime import UTC, datetime
from typing import TypeAlias

import numpy as np

from terminal_sim.catalogue import catalogue
from terminal_sim.market.noise import Ints

WEEK_S, DAY_S = 604_800, 86_400
# 1970-01-01 was a Thursday; weeks begin on Sunday, four days earlier.
_THURSDAY_S = 4 * DAY_S
# How the value of a timeframe constant says its unit.
_HOURS, _WEEKS, _MONTHS = 0x4000, 0x8000, 0xC000

Span: TypeAlias = int
"""Seconds of a timeframe, or ``MONTH``."""
MONTH: Span = 0
"""Stands for the calendar month, the only timeframe of varying length."""


def span(timeframe: int) -> Span | None:
    """Return the length of a ``TIMEFRAME_*`` constant, or None when it is none."""
    names = (name for name in catalogue().constants if name.startswith("TIMEFRAME_"))
    if timeframe not in {catalogue().constants[name] for name in names}:
        return None
    if timeframe < _HOURS:
        return timeframe * 60
    if timeframe < _WEEKS:
        return (timeframe - _HOURS) * 3600
    return WEEK_S if timeframe < _MONTHS else MONTH


def opens(length: Span, wall_s: Ints) -> Ints:
    """Return when the bars that hold these readings open (wall seconds)."""
    if length == MONTH:
        months = wall_s.astype("datetime64[s]").astype("datetime64[M]")
        return months.astype("datetime64[s]").astype(np.int64)
    shift = _THURSDAY_S if length == WEEK_S else 0
    floored: Ints = (wall_s + shift) // length * length - shift
    return floored


def opened(length: Span, wall_s: int) -> int:
    """Return when the bar that holds one reading opens (wall seconds)."""
    return int(opens(length, np.array([wall_s], np.int64))[0])


def moved(length: Span, open_s: int, bars: int) -> int:
    """Return the opening time ``bars`` bars later, or earlier when negative (wall seconds)."""
    if length != MONTH:
        return open_s + bars * length
    date = datetime.fromtimestamp(open_s, UTC)
    months = date.year * 12 + date.month - 1 + bars
    year, month = divmod(months, 12)
    return int(datetime(max(year, 1), month + 1, 1, tzinfo=UTC).timestamp())
