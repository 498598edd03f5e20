from datetime import UTC, datetime
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from terminal_sim.market.clocks import EET_US, WallClock

HOUR_MS = 3_600_000


def new_york() -> ZoneInfo | None:
    try:
        return ZoneInfo("America/New_York")
    except ZoneInfoNotFoundError:
        return None


@settings(max_examples=300)
@given(st.integers(946_684_800, 2_145_916_800))
def test_the_default_rule_is_new_york_and_seven_hours(second: int) -> None:
    zone = new_york()
    if zone is None:
        pytest.skip("this machine has no time zone data")
    offset = datetime.fromtimestamp(second, zone).utcoffset()
    assert offset is not None
    assert WallClock(EET_US).offset_ms(second * 1000) == (offset.total_seconds() + 7 * 3600) * 1000


@pytest.mark.parametrize(
    ("before", "offset"),
    [
        (datetime(2026, 3, 8, 7, tzinfo=UTC), 2),
        (datetime(2026, 11, 1, 6, tzinfo=UTC), 3),
        (datetime(2006, 4, 2, 7, tzinfo=UTC), 2),
        (datetime(2006, 10, 29, 6, tzinfo=UTC), 3),
        (datetime(2007, 3, 11, 7, tzinfo=UTC), 2),
    ],
)
def test_the_offset_changes_at_the_very_millisecond(before: datetime, offset: int) -> None:
    clock, change = WallClock(EET_US), int(before.timestamp()) * 1000
    other = 5 - offset
    assert clock.offset_ms(change - 1) == offset * HOUR_MS
    assert clock.offset_ms(change) == other * HOUR_MS


def test_the_highest_reading_survives_the_change_back() -> None:
    clock, change = WallClock(EET_US), 1_793_512_800_000
    assert clock.latest_ms(change + 60_000) == change - 1 + 3 * HOUR_MS
    assert clock.latest_ms(change + 2 * HOUR_MS) == change + 4 * HOUR_MS


@pytest.mark.parametrize(
    ("rule", "hours"), [("UTC", 0), ("+03:00", 3), ("-05:00", -5), ("+05:30", 5.5)]
)
def test_fixed_offsets(rule: str, hours: float) -> None:
    assert WallClock(rule).wall_ms(10**12) == 10**12 + hours * HOUR_MS


@pytest.mark.parametrize("rule", ["", "EST", "3", "+3:00", "+15:00", "+01:60", "Europe/Riga"])
def test_other_rules_are_refused(rule: str) -> None:
    with pytest.raises(ValueError, match="clock must be"):
        WallClock(rule)
