"""Instants, and the wall clocks of broker servers."""

import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from terminal_sim.market.noise import Ints

EET_US = "EET-US"
"""Eastern European Time that changes on the dates of the USA: the rule of most brokers, because
it ends their trading day with New York's."""

_HOUR_MS = 3_600_000
_FIRST_YEAR, _LAST_YEAR = 1990, 2120
# Until 2006 summer time in the USA began in April and ended in October.
_LONGER_SUMMER_SINCE = 2007
_FIXED = re.compile(r"([+-])(\d\d):(\d\d)")
_MAX_OFFSET_HOURS = 14


class Clock(Protocol):
    """Where "now" comes from."""

    def now_ms(self) -> int:
        """Return the present instant in UTC epoch milliseconds."""
        ...


class SystemClock:
    """The machine's clock."""

    def now_ms(self) -> int:
        """Return the present instant in UTC epoch milliseconds."""
        return time.time_ns() // 1_000_000


class WallClock:
    """A server's wall clock: what MetaTrader stores as if it were an epoch.

    Args:
        rule: ``EET-US``, ``UTC`` or a fixed offset such as ``+03:00``.

    Raises:
        ValueError: The rule is none of these.
    """

    def __init__(self, rule: str) -> None:
        self.rule = rule
        self._changes, self._offsets = _offsets(rule)

    def offset_ms(self, utc_ms: int) -> int:
        """Return wall clock minus UTC at a UTC instant."""
        return int(self._offsets[self._changes.searchsorted(utc_ms, side="right")])

    def wall_ms(self, utc_ms: int) -> int:
        """Return the wall clock of a UTC instant."""
        return utc_ms + self.offset_ms(utc_ms)

    def walls_ms(self, utc_ms: npt.NDArray[Any]) -> Ints:
        """Return the wall clock of many UTC instants."""
        walls: Ints = utc_ms + self._offsets[self._changes.searchsorted(utc_ms, side="right")]
        return walls

    def latest_ms(self, utc_ms: int) -> int:
        """Return the highest reading of the wall clock up to a UTC instant.

        It exceeds the present reading in the hour after the clock was put back.
        """
        index = int(self._changes.searchsorted(utc_ms, side="right"))
        if index == 0:
            return self.wall_ms(utc_ms)
        before = int(self._changes[index - 1]) - 1 + int(self._offsets[index - 1])
        return max(self.wall_ms(utc_ms), before)

    def bounds_ms(self, first_ms: int, stop_ms: int) -> tuple[int, int]:
        """Return UTC bounds that hold every instant whose reading is in ``[first, stop)``."""
        return first_ms - int(self._offsets.max()), stop_ms - int(self._offsets.min())

    def skipped_ms(self, first_ms: int, stop_ms: int) -> Iterator[tuple[int, int]]:
        """Yield the readings in ``[first, stop)`` that the clock never shows, as half-open spans.

        There is one wherever the clock was put forward.
        """
        low, high = self.bounds_ms(first_ms, stop_ms)
        for index in range(*self._changes.searchsorted((low, high)).tolist()):
            before, after = self._offsets[index : index + 2].tolist()
            start = int(self._changes[index]) + before
            if after > before and start < stop_ms and start + after - before > first_ms:
                yield start, start + after - before


@cache
def _offsets(rule: str) -> tuple[Ints, Ints]:
    """Return UTC instants of change, and the offsets before, between and after them."""
    if rule == EET_US:
        years = range(_FIRST_YEAR, _LAST_YEAR)
        changes = [change for year in years for change in _us_changes(year)]
        offsets = [2 * _HOUR_MS] + [3 * _HOUR_MS, 2 * _HOUR_MS] * len(years)
        return np.array(changes, np.int64), np.array(offsets, np.int64)
    return np.empty(0, np.int64), np.array([_fixed_ms(rule)], np.int64)


def _fixed_ms(rule: str) -> int:
    if rule == "UTC":
        return 0
    match = _FIXED.fullmatch(rule)
    if match is None or int(match[2]) > _MAX_OFFSET_HOURS or int(match[3]) > 59:  # noqa: PLR2004 - minutes
        raise ValueError(f"clock must be {EET_US}, UTC or +HH:MM, not {rule!r}")
    size = int(match[2]) * _HOUR_MS + int(match[3]) * 60_000
    return -size if match[1] == "-" else size


def _us_changes(year: int) -> tuple[int, int]:
    """Return when summer time begins (07:00 UTC, 2:00 in New York) and ends (06:00 UTC)."""
    if year >= _LONGER_SUMMER_SINCE:
        spring, autumn = _sunday(year, 3, 8), _sunday(year, 11, 1)
    else:
        spring, autumn = _sunday(year, 4, 1), _sunday(year, 10, 25)
    return _epoch_ms(spring.replace(hour=7)), _epoch_ms(autumn.replace(hour=6))


def _sunday(year: int, month: int, day: int) -> datetime:
    """Return the first Sunday on or after a date."""
    date = datetime(year, month, day, tzinfo=UTC)
    return date + timedelta(days=6 - date.weekday())


def _epoch_ms(moment: datetime) -> int:
    return int(moment.timestamp()) * 1000
