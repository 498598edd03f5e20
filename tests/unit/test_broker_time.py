"""Broker clocks: New York's midnight plus seven hours, and others."""

import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mt5kit.domain.broker_time import BrokerClock
from mt5kit.domain.instants import END_OF_TIME_S, iso_utc, parse_instant_ms

EET_US = BrokerClock()
HOUR_MS = 3_600_000


def ms(text: str) -> int:
    return round(dt.datetime.fromisoformat(text).replace(tzinfo=dt.UTC).timestamp() * 1000)


@pytest.mark.parametrize(
    ("wall", "utc"),
    [
        ("2026-01-15T12:00", "2026-01-15T10:00"),
        ("2026-07-15T12:00", "2026-07-15T09:00"),
        # America changes on 8 March 2026, Europe only on the 29th.
        ("2026-03-07T12:00", "2026-03-07T10:00"),
        ("2026-03-09T12:00", "2026-03-09T09:00"),
        # And back on 1 November, Europe on 25 October.
        ("2026-10-30T12:00", "2026-10-30T09:00"),
        ("2026-11-02T12:00", "2026-11-02T10:00"),
    ],
)
def test_the_default_rule_keeps_american_dates(wall: str, utc: str) -> None:
    assert EET_US.to_utc_ms(ms(wall)) == ms(utc)
    assert EET_US.from_utc_ms(ms(utc)) == ms(wall)


@given(
    st.integers(min_value=ms("2000-01-02T00:00"), max_value=ms("2037-12-30T00:00")),
    st.sampled_from(["EET-US", "UTC", "+05:30", "-03:00", "Europe/Nicosia"]),
)
def test_there_and_back_is_the_same_but_in_the_repeated_hour(utc_ms: int, rule: str) -> None:
    clock = BrokerClock(rule)
    back = clock.to_utc_ms(clock.from_utc_ms(utc_ms))
    assert back in {utc_ms, utc_ms - HOUR_MS}
    assert clock.from_utc_ms(back) == clock.from_utc_ms(utc_ms)


def test_never_has_no_utc() -> None:
    assert EET_US.iso(0) is None
    assert EET_US.iso(ms("2026-01-15T12:00") + 7) == "2026-01-15T10:00:00.007Z"


@pytest.mark.parametrize("rule", ["+5", "Mars/Olympus", "", "../etc/passwd"])
def test_an_unknown_rule_is_refused(rule: str) -> None:
    with pytest.raises(ValueError, match="unknown broker clock rule"):
        BrokerClock(rule)


@given(st.integers(min_value=0, max_value=END_OF_TIME_S * 1000 - 1))
def test_instants_read_back_what_they_wrote(epoch_ms: int) -> None:
    assert parse_instant_ms(iso_utc(epoch_ms)) == epoch_ms


@pytest.mark.parametrize(
    "text", ["", "yesterday", "-1", "nan", "inf", "1e400", "2026-13-01", "9999-01-01"]
)
def test_what_is_no_instant_is_refused(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - each parser says it in its own words
        parse_instant_ms(text)
