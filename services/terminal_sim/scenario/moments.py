"""Instants of a scenario file: absolute, or counted from the day the simulator was started."""

import re
from datetime import UTC, datetime
from typing import Any

DAY_MS = 86_400_000
_UNITS_MS = {"s": 1000, "m": 60_000, "h": 3_600_000, "d": DAY_MS}
_RELATIVE = re.compile(r"([+-])(\d{1,9})([smhd])")


class Moment:
    """An instant in UTC epoch milliseconds; a type of its own for the decoder.

    Attributes:
        ms: The instant.
        offset_ms: How far it is from midnight before the start; None when it is absolute.
    """

    __slots__ = ("ms", "offset_ms")

    def __init__(self, ms: int, offset_ms: int | None = None) -> None:
        self.ms = ms
        self.offset_ms = offset_ms

    def counted_from(self, midnight_ms: int) -> "Moment":
        """Return the same moment of a simulation that began on another day."""
        return (
            self if self.offset_ms is None else Moment(midnight_ms + self.offset_ms, self.offset_ms)
        )

    def __repr__(self) -> str:
        return f"Moment({self.ms})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Moment) and other.ms == self.ms

    def __hash__(self) -> int:
        return hash(self.ms)


def parse(value: Any, start_ms: int) -> Moment:  # noqa: ANN401 - what a TOML or JSON decoder found
    """Read ISO 8601 (without an offset: UTC), or ``-3d`` counted from midnight before the start.

    Raises:
        ValueError: The value is neither.
    """
    if isinstance(value, datetime):
        return _absolute(value)
    if not isinstance(value, str):
        raise ValueError(f"a time is an ISO 8601 text or an offset such as -3d, not {value!r}")  # noqa: TRY004 - the decoder reports ValueError with its place
    if match := _RELATIVE.fullmatch(value):
        size = int(match[2]) * _UNITS_MS[match[3]]
        offset = -size if match[1] == "-" else size
        return Moment(start_ms - start_ms % DAY_MS + offset, offset)
    return _absolute(datetime.fromisoformat(value))


def _absolute(moment: datetime) -> Moment:
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return Moment(round(aware.timestamp() * 1000))
