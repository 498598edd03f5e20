"""Our own instants: ISO-8601 UTC with milliseconds, and epoch milliseconds."""

import datetime as dt
import time
from functools import lru_cache

# The year 9999 begins: a wall clock ahead of UTC must still be a date of Python's calendar.
END_OF_TIME_S = 253_370_764_800


def now_ms() -> int:
    """Epoch milliseconds now, UTC."""
    return time.time_ns() // 1_000_000


def iso_utc(epoch_ms: int) -> str:
    """`2026-01-31T12:00:00.250Z` of an instant in epoch milliseconds."""
    return f"{_second(epoch_ms // 1000)}.{epoch_ms % 1000:03d}Z"


# Streams stamp thousands of messages within a second, and positions keep the time they opened at.
@lru_cache(maxsize=8192)
def _second(epoch_s: int) -> str:
    return f"{dt.datetime.fromtimestamp(epoch_s, dt.UTC):%Y-%m-%dT%H:%M:%S}"


def parse_instant_ms(text: str) -> int:
    """Epoch milliseconds of an ISO-8601 instant or of epoch seconds written as text.

    An ISO instant without a zone is UTC.

    Raises:
        ValueError: It is neither, or lies outside the years 1970 to 9998.
    """
    try:
        epoch_s = float(text)
    except ValueError:
        instant = dt.datetime.fromisoformat(text)
        if instant.tzinfo is None:
            instant = instant.replace(tzinfo=dt.UTC)
        epoch_s = instant.timestamp()
    if not 0 <= epoch_s < END_OF_TIME_S:
        raise ValueError(f"{text!r} lies outside the years 1970 to 9998")
    return round(epoch_s * 1000)
