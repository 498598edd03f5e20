"""Instants, and the wall clocks of broker servers."""

import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from terminal_sim.market.noise import Ints

Shifts: TypeAlias = tuple[tuple[int, int], ...]

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
        shifts: See :meth:`shifted`; ascending.

    Raises:
        ValueError: The rule is none of these.
    """

    def __init__(self, rule: str, shifts: Shifts = ()) -> None:
        self.rule = rule
        self.shifts = shifts
        self._changes, self._offsets = _offsets(rule)
        if shifts:
            self._changes, self._offsets = _shifted(self._changes, self._offsets, shifts)
        # The last reading before each change, and the highest up to it.
        self._peaks = np.maximum.accumulate(self._changes - 1 + self._offsets[:-1])
        self._gaps = _gaps(self._changes, self._offsets) if shifts else None

    def shifted(self, shifts: Shifts) -> "WallClock":
        """Return this clock with other shifts: pairs of a UTC instant (ms) and by how many ms.

        The clock is put forward (or back, when negative) at that instant, beyond what the rule
        says; what it read before stays.
        """
        return WallClock(self.rule, tuple(sorted(shifts)))

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
        return max(self.wall_ms(utc_ms), int(self._peaks[index - 1]))

    def latests_ms(self, utc_ms: npt.NDArray[Any]) -> Ints:
        """Return what :meth:`latest_ms` does for many UTC instants."""
        index = self._changes.searchsorted(utc_ms, side="right")
        peaks = np.concatenate(([np.iinfo(np.int64).min], self._peaks))
        latest: Ints = np.maximum(utc_ms + self._offsets[index], peaks[index])
        return latest

    def bounds_ms(self, first_ms: int, stop_ms: int) -> tuple[int, int]:
        """Return UTC bounds that hold every instant whose reading is in ``[first, stop)``."""
        return first_ms - int(self._offsets.max()), stop_ms - int(self._offsets.min())

    def stretches_ms(self, first_ms: int, stop_ms: int) -> Iterator[tuple[int, int, int]]:
        """Yield the stretches of ``[first, stop)`` (UTC) between changes: start, stop, offset."""
        start = int(self._changes.searchsorted(first_ms, side="right"))
        end = int(self._changes.searchsorted(stop_ms))
        edges = [first_ms, *self._changes[start:end].tolist(), stop_ms]
        offsets = self._offsets[start : end + 1].tolist()
        yield from zip(edges, edges[1:], offsets, strict=False)

    def skipped_ms(self, first_ms: int, stop_ms: int) -> Iterator[tuple[int, int]]:
        """Yield the readings in ``[first, stop)`` that the clock never shows, as half-open spans.

        There is one wherever the clock was put forward and not soon put back again.
        """
        if self._gaps is not None:
            yield from (gap for gap in self._gaps if gap[0] < stop_ms and gap[1] > first_ms)
            return
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


def _shifted(changes: Ints, offsets: Ints, shifts: Shifts) -> tuple[Ints, Ints]:
    """Put the shifts among a rule's changes."""
    instants = np.array([instant for instant, _ in shifts], np.int64)
    sums = np.concatenate(([0], np.cumsum([by for _, by in shifts]))).astype(np.int64)
    together = np.unique(np.concatenate((changes, instants)))
    # Before the first change, and from each change on.
    rule = offsets[np.concatenate(([0], changes.searchsorted(together, side="right")))]
    beyond = sums[np.concatenate(([0], instants.searchsorted(together, side="right")))]
    return together, rule + beyond


def _gaps(changes: Ints, offsets: Ints) -> tuple[tuple[int, int], ...]:
    """Return the readings that are never shown, as half-open spans in ascending order."""
    gaps: list[tuple[int, int]] = []
    starts = (changes + offsets[1:]).tolist()
    stops = [*(changes[1:] + offsets[1:-1]).tolist(), None]
    shown = int(changes[0] + offsets[0])
    for start, stop in zip(starts, stops, strict=True):
        if start > shown:
            gaps.append((shown, start))
        elif start < shown:
            gaps = [rest for gap in gaps for rest in _without(gap, start, stop)]
        shown = start if stop is None else max(shown, stop)
    return tuple(gaps)


def _without(gap: tuple[int, int], start: int, stop: int | None) -> Iterator[tuple[int, int]]:
    """Yield what of a gap is left when the readings ``[start, stop)`` are shown after all."""
    left, right = (gap[0], min(gap[1], start)), (max(gap[0], stop or gap[1]), gap[1])
    if stop is not None and (stop <= gap[0] or start >= gap[1]):
        yield gap
        return
    yield from (rest for rest in (left, right) if rest[0] < rest[1])


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
