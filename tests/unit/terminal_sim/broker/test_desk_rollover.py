"""Swaps, and the midnights of servers' clocks."""

from datetime import UTC, datetime
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.terminal_sim.broker.trading import Trading

from terminal_sim.broker.days import DAY_MS, instant_of
from terminal_sim.broker.rollover import nights, rollovers_between
from terminal_sim.market.clocks import WallClock
from terminal_sim.market.instruments import INSTRUMENTS

NEW_YORK = WallClock("EET-US")
RULES = ("EET-US", "UTC", "+03:00", "-05:30")
# 2026-03-01, a week before clocks are put forward.
START = 1_772_323_200_000
INSTANTS = st.integers(START - 3 * DAY_MS, START + 25 * DAY_MS)


def utc(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


def test_a_server_on_new_yorks_dates_rolls_over_when_new_york_closes() -> None:
    assert rollovers_between(NEW_YORK, utc("2026-11-18T00:00"), utc("2026-11-20T00:00")) == [
        utc("2026-11-18T22:00"),
        utc("2026-11-19T22:00"),
    ]
    assert rollovers_between(NEW_YORK, utc("2026-07-01T21:00"), utc("2026-07-02T21:00")) == [
        utc("2026-07-02T21:00")
    ]
    assert rollovers_between(NEW_YORK, utc("2026-07-02T21:00"), utc("2026-07-02T21:00")) == []


@st.composite
def clocks(draw: st.DrawFn) -> WallClock:
    """Clocks of any rule, as they are or shifted once or twice about ``START``."""
    shifts = st.tuples(
        st.integers(START - 2 * DAY_MS, START + 20 * DAY_MS),
        st.integers(-1440, 1440).map(lambda minutes: minutes * 60_000),
    )
    clock = WallClock(draw(st.sampled_from(RULES)))
    return clock.shifted(tuple(draw(st.lists(shifts, max_size=2, unique_by=lambda x: x[0]))))


@settings(max_examples=100)
@given(clocks(), INSTANTS, st.integers(0, 30 * DAY_MS), st.floats(0, 1))
def test_every_day_begins_once(wall: WallClock, first: int, length: int, cut: float) -> None:
    last, middle = first + length, first + int(length * cut)
    found = rollovers_between(wall, first, last)
    parts = rollovers_between(wall, first, middle) + rollovers_between(wall, middle, last)
    assert parts == found

    def day(at_ms: int) -> int:
        return wall.latest_ms(at_ms) // DAY_MS

    # The day changes at each rollover, and nowhere between them.
    edges = [first, *found, last]
    assert edges == sorted(edges)
    assert first not in found
    for start, end in pairwise(edges):
        assert day(start) == day(max(start, end - 1))
        assert end not in found or day(end) > day(end - 1)
    assert day(last) == day(edges[-2])


@settings(max_examples=100)
@given(clocks(), INSTANTS)
def test_the_instant_of_a_reading_is_the_first_that_shows_it(wall: WallClock, at_ms: int) -> None:
    reading = wall.wall_ms(at_ms)
    found = instant_of(wall, reading)
    assert found <= at_ms
    assert wall.latest_ms(found - 1) < reading <= wall.latest_ms(found)


def test_a_reading_that_is_skipped_has_the_instant_of_the_change() -> None:
    # 2026-03-08 07:00 UTC: the clock jumps from 09:00 to 10:00.
    assert instant_of(NEW_YORK, utc("2026-03-08T09:30")) == utc("2026-03-08T07:00")
    # 2026-11-01 06:00 UTC: it goes back from 09:00 to 08:00, and 08:30 comes twice.
    assert instant_of(NEW_YORK, utc("2026-11-01T08:30")) == utc("2026-11-01T05:30")


def test_a_clock_that_is_put_forward_over_two_midnights_rolls_over_once() -> None:
    midnight = utc("2026-11-18T00:00")
    wall = WallClock("UTC").shifted(((midnight, DAY_MS),))
    assert rollovers_between(wall, midnight - DAY_MS, midnight + 1) == [midnight]
    assert rollovers_between(wall, midnight, midnight + DAY_MS) == [midnight + DAY_MS]


def test_a_week_has_seven_nights_three_of_them_after_wednesday() -> None:
    week = rollovers_between(NEW_YORK, utc("2026-11-15T22:00"), utc("2026-11-22T22:00"))
    # Monday's night first.
    assert [nights(NEW_YORK, at) for at in week] == [1, 1, 3, 1, 1, 0, 0]


@pytest.mark.parametrize("currency", ["USD", "JPY"])
@pytest.mark.parametrize("sign", [1, -1])
def test_swap_is_points_times_volume_in_the_currency_of_the_account(
    currency: str, sign: int
) -> None:
    trading = Trading(currency=currency, balance=1e8)
    trading.market(sign, volume=2.0)
    (before,) = trading.state.positions.values()
    first, wednesday = utc("2026-11-19T22:00"), utc("2026-11-18T22:00")
    trading.roll(first)
    trading.roll(wednesday)
    (after,) = trading.state.positions.values()
    points = INSTRUMENTS["EURUSD"].swaps[0 if sign > 0 else 1]
    digits = 0 if currency == "JPY" else 2
    amounts = [
        round(
            2.0 * points * times * (1 if currency == "USD" else trading.tape.at("USDJPY", at).bid),
            digits,
        )
        for at, times in ((first, 1), (wednesday, 3))
    ]
    assert after.swap == pytest.approx(sum(amounts), abs=1e-6)
    assert after.updated_ms == before.updated_ms
    assert trading.value().floating == pytest.approx(
        float(np.sum(trading.value().profit)) + after.swap, abs=0.005
    )


def test_the_weekend_and_what_opens_at_midnight_cost_nothing() -> None:
    trading = Trading(now_ms=utc("2026-11-19T22:00"))
    trading.market(1)
    trading.roll(trading.now_ms)
    trading.roll(utc("2026-11-21T22:00"))
    trading.roll(utc("2026-11-22T22:00"))
    assert [position.swap for position in trading.state.positions.values()] == [0.0]
    trading.roll(utc("2026-11-20T22:00"))
    assert [position.swap for position in trading.state.positions.values()] == [-0.64]
