"""From a broker's wall clock, written as an epoch, to UTC and back."""

import datetime as dt
import re
from functools import lru_cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from mt5kit.domain.instants import iso_utc

# Most brokers close the trading day at 17:00 New York, so their midnight is New York plus 7 h:
# UTC+2 in winter and UTC+3 in summer, changing on the American dates.
DEFAULT_RULE = "EET-US"
_NEW_YORK_CLOSE = dt.timedelta(hours=7)
_OFFSET = re.compile(r"([+-])(\d{2}):(\d{2})")
_EPOCH = dt.datetime(1970, 1, 1)  # noqa: DTZ001 - a wall clock has no zone; that is its nature
_HOUR_MS = 3_600_000


class BrokerClock:
    """The time-zone rule of one broker server.

    Args:
        rule: `EET-US` (Eastern European time on American daylight-saving dates), `UTC`,
            a fixed `+HH:MM`, or an IANA zone name.

    Raises:
        ValueError: The rule is none of these.
    """

    def __init__(self, rule: str = DEFAULT_RULE) -> None:
        self.rule = rule
        self._zone, self._shift = _parse(rule)
        # An offset changes on whole hours only, so one look-up serves the hour.
        self._offset_ms = lru_cache(maxsize=4096)(self._offset_of_wall_hour)
        # A stream asks ten times a second when the same positions were opened.
        self._iso = lru_cache(maxsize=8192)(self._iso_of_wall)

    def to_utc_ms(self, wall_ms: int) -> int:
        """UTC epoch milliseconds of a wall-clock epoch in milliseconds.

        In the repeated hour of autumn the first of the two is meant.
        """
        return wall_ms - self._offset_ms(wall_ms // _HOUR_MS)

    def from_utc_ms(self, utc_ms: int) -> int:
        """Wall-clock epoch in milliseconds at a UTC instant in epoch milliseconds."""
        local = dt.datetime.fromtimestamp(utc_ms // 1000, self._zone).replace(tzinfo=None)
        wall_s = round((local - _EPOCH + self._shift).total_seconds())
        return wall_s * 1000 + utc_ms % 1000

    def iso(self, wall_ms: int) -> str | None:
        """ISO-8601 UTC with milliseconds of a wall-clock epoch, None for 0 ("never")."""
        return self._iso(wall_ms) if wall_ms else None

    def _iso_of_wall(self, wall_ms: int) -> str:
        return iso_utc(self.to_utc_ms(wall_ms))

    def _offset_of_wall_hour(self, wall_hour: int) -> int:
        wall = _EPOCH + dt.timedelta(hours=wall_hour)
        utc = (wall - self._shift).replace(tzinfo=self._zone).astimezone(dt.UTC)
        return round((wall - utc.replace(tzinfo=None)).total_seconds() * 1000)


def _parse(rule: str) -> tuple[dt.tzinfo, dt.timedelta]:
    if rule == DEFAULT_RULE:
        return ZoneInfo("America/New_York"), _NEW_YORK_CLOSE
    if fixed := _OFFSET.fullmatch(rule):
        sign = 1 if fixed[1] == "+" else -1
        offset = sign * dt.timedelta(hours=int(fixed[2]), minutes=int(fixed[3]))
        return dt.timezone(offset), dt.timedelta()
    try:
        return ZoneInfo(rule), dt.timedelta()
    except (ZoneInfoNotFoundError, ValueError) as unknown:
        raise ValueError(f"unknown broker clock rule {rule!r}") from unknown
