"""Bars against a slow, obvious aggregation of the ticks themselves."""

from itertools import groupby
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from terminal_sim.catalogue import catalogue
from terminal_sim.market.bars import FIRST_S, Bars
from terminal_sim.market.clocks import EET_US, WallClock
from terminal_sim.market.instruments import INSTRUMENTS
from terminal_sim.market.prices import MINUTE_MS, Market
from terminal_sim.market.timeframes import span

MARKET = Market(99)
SPANS = {name: span(value) for name, value in catalogue().constants.items() if "FRAME_" in name}
SHORT = {name: length for name, length in SPANS.items() if length and length <= 3600}
LONG = {name: length for name, length in SPANS.items() if length is not None and name not in SHORT}
# The clock is put forward on 2026-03-08 at 07:00 UTC and back on 2026-11-01 at 06:00 UTC.
SPRING_MS, AUTUMN_MS = 1_772_953_200_000, 1_793_512_800_000
RULES = st.sampled_from([EET_US, "UTC", "+05:30", "-03:00"])
INSTANTS = st.one_of(
    st.integers(978_307_200_000, 4_000_000_000_000),
    st.integers(SPRING_MS - 7_200_000, SPRING_MS + 36_000_000),
    st.integers(AUTUMN_MS - 7_200_000, AUTUMN_MS + 36_000_000),
)
BOUNDED = settings(max_examples=30, derandomize=True, deadline=None)


def slow_bars(
    symbol: str, length: int, wall: WallClock, start_ms: int, now_ms: int
) -> list[tuple[Any, ...]]:
    """Group every tick from ``start_ms`` to ``now_ms`` by the span its wall clock lies in."""
    scale = INSTRUMENTS[symbol].scale
    ticks = MARKET.ticks(symbol, start_ms, now_ms + 1)
    walls = (wall.walls_ms(ticks["time_msc"]) // 1000).tolist()
    rows = [
        (wall_s - wall_s % length, bid, round((ask - bid) * scale))
        for wall_s, (_, bid, ask) in zip(walls, ticks.tolist(), strict=True)
    ]
    rows.sort(key=lambda row: row[0])  # stable: ticks of a bar keep their order
    bars = []
    for time, group in groupby(rows, key=lambda row: row[0]):
        _, bids, spreads = zip(*group, strict=True)
        shape = bids[0], max(bids), min(bids), bids[-1], len(bids), min(spreads), 0
        bars.append((time, *shape))
    return bars


@BOUNDED
@given(st.sampled_from(sorted(SHORT)), st.sampled_from(sorted(INSTRUMENTS)), RULES, INSTANTS)
@example("TIMEFRAME_M1", "EURUSD", EET_US, AUTUMN_MS + 1_800_123)
@example("TIMEFRAME_H1", "EURUSD", EET_US, AUTUMN_MS + 1_800_123)
@example("TIMEFRAME_M30", "AUDJPY", EET_US, SPRING_MS + 5_400_000)
def test_bars_are_the_aggregation_of_their_ticks(
    name: str, symbol: str, rule: str, now_ms: int
) -> None:
    length, wall = SHORT[name], WallClock(rule)
    start_ms = now_ms - 3 * length * 1000 - 7_200_000
    expected = slow_bars(symbol, length, wall, start_ms, now_ms)
    got = Bars(MARKET, wall).latest(symbol, length, 0, 3, now_ms).tolist()
    assert got == expected[-3:]


@BOUNDED
@given(st.sampled_from(sorted(LONG)), st.sampled_from(sorted(INSTRUMENTS)), RULES, INSTANTS)
def test_long_bars_are_the_aggregation_of_m1(
    name: str, symbol: str, rule: str, now_ms: int
) -> None:
    length, bars = LONG[name], Bars(MARKET, WallClock(rule))
    got = bars.latest(symbol, length, 0, 2, now_ms)
    minutes = bars.between(symbol, 60, int(got["time"][0]), 2**40, now_ms)
    for bar, following in zip(got, [*got["time"][1:].tolist(), 2**40], strict=True):
        inside = minutes[(minutes["time"] >= bar["time"]) & (minutes["time"] < following)]
        assert bar["open"] == inside["open"][0]
        assert bar["close"] == inside["close"][-1]
        assert bar["high"] == inside["high"].max()
        assert bar["low"] == inside["low"].min()
        assert bar["tick_volume"] == inside["tick_volume"].sum()
        assert bar["spread"] == inside["spread"].min()


def test_a_day_is_the_aggregation_of_its_ticks() -> None:
    wall = WallClock(EET_US)
    now_ms = SPRING_MS + 43_200_000
    day = Bars(MARKET, wall).latest("XAUUSD", 86_400, 0, 1, now_ms).tolist()
    assert day == slow_bars("XAUUSD", 86_400, wall, now_ms - 90_000_000, now_ms)[-1:]


@BOUNDED
@given(st.sampled_from(sorted(INSTRUMENTS)), st.integers(16_000_000, 60_000_000))
def test_ticks_reach_the_extremes_of_their_minute_and_meet_the_next(
    symbol: str, minute: int
) -> None:
    bar = MARKET.minutes(symbol, np.array([minute]))
    ticks = MARKET.ticks(symbol, minute * MINUTE_MS, (minute + 1) * MINUTE_MS)
    bids = np.rint(ticks["bid"] * INSTRUMENTS[symbol].scale)
    assert (bids[0], bids[-1]) == (bar.open[0], bar.close[0])
    assert (bids.max(), bids.min()) == (bar.high[0], bar.low[0])
    assert len(ticks) == bar.ticks[0]
    assert 200 <= len(ticks) <= 300
    assert ticks["time_msc"][0] == minute * MINUTE_MS
    assert np.all(np.diff(ticks["time_msc"]) > 0)
    assert np.all(ticks["ask"] > ticks["bid"])
    assert MARKET.minutes(symbol, np.array([minute + 1])).open[0] == bar.close[0]


@BOUNDED
@given(st.sampled_from(sorted(INSTRUMENTS)), st.integers(10**12, 4 * 10**12), st.integers(1, 200))
def test_a_quote_is_the_newest_tick_at_or_before(symbol: str, at_ms: int, step: int) -> None:
    ticks = MARKET.ticks(symbol, at_ms - MINUTE_MS, at_ms + MINUTE_MS)
    wanted = np.arange(at_ms, at_ms + MINUTE_MS, step * 37)
    newest = ticks["time_msc"].searchsorted(wanted, side="right") - 1
    assert MARKET.quotes(symbol, wanted).tolist() == ticks[newest].tolist()
    assert MARKET.quotes(symbol, ticks["time_msc"].copy()).tolist() == ticks.tolist()
    assert MARKET.quotes(symbol, ticks["time_msc"][1:] - 1).tolist() == ticks[:-1].tolist()


@BOUNDED
@given(st.sampled_from(sorted(SPANS)), st.integers(0, 40), st.integers(1, 30), RULES, INSTANTS)
@example("TIMEFRAME_M30", 20, 30, EET_US, SPRING_MS + 36_000_000)
@example("TIMEFRAME_M1", 0, 30, EET_US, SPRING_MS + 60_000)
@example("TIMEFRAME_M5", 3, 30, EET_US, AUTUMN_MS + 600_000)
def test_places_count_existing_bars_from_the_newest(
    name: str, skip: int, count: int, rule: str, now_ms: int
) -> None:
    length, bars = SPANS[name], Bars(MARKET, WallClock(rule))
    assert length is not None
    every = bars.latest("EURUSD", length, 0, skip + count, now_ms)
    some = bars.latest("EURUSD", length, skip, count, now_ms)
    assert some.tolist() == every[: len(every) - skip].tolist()[-count:]
    assert np.all(np.diff(every["time"]) > 0)
    if every["time"][0] > FIRST_S:
        assert len(every) == skip + count
    else:
        assert length >= 86_400


@BOUNDED
@given(st.sampled_from(sorted(SPANS)), st.integers(1, 30), RULES, INSTANTS)
@example("TIMEFRAME_M1", 10, EET_US, SPRING_MS)
def test_until_gives_the_bars_at_or_before_a_date(
    name: str, count: int, rule: str, now_ms: int
) -> None:
    length, wall = SPANS[name], WallClock(rule)
    assert length is not None
    bars, last_s = Bars(MARKET, wall), wall.wall_ms(now_ms) // 1000
    later_ms = now_ms + 7_200_000
    got = bars.until("EURUSD", length, last_s, count, later_ms)
    assert got["time"][-1] <= last_s
    every = bars.between("EURUSD", length, int(got["time"][0]), last_s, later_ms)
    assert got.tolist() == every.tolist()
    if got["time"][0] > FIRST_S:
        assert len(got) == count


def test_spring_has_no_bars_in_the_skipped_hour() -> None:
    wall = WallClock(EET_US)
    skipped = list(wall.skipped_ms(wall.wall_ms(SPRING_MS - 1), wall.wall_ms(SPRING_MS) + 1))
    assert len(skipped) == 1
    start, end = (edge // 1000 for edge in skipped[0])
    assert end - start == 3600
    bars = Bars(MARKET, wall)
    assert len(bars.between("EURUSD", 60, start, end - 60, SPRING_MS + 10**8)) == 0
    assert len(bars.between("EURUSD", 60, start - 60, end, SPRING_MS + 10**8)) == 2


def test_autumn_bars_of_the_repeated_hour_hold_both_passes() -> None:
    wall = WallClock(EET_US)
    first_s = wall.wall_ms(AUTUMN_MS) // 1000
    repeated = Bars(MARKET, wall).between("EURUSD", 3600, first_s, first_s, AUTUMN_MS + 10**8)
    ticks = MARKET.ticks("EURUSD", AUTUMN_MS - 3_600_000, AUTUMN_MS + 3_600_000)
    assert repeated["tick_volume"].tolist() == [len(ticks)]


def test_nothing_before_2000() -> None:
    wall = WallClock("UTC")
    bars = Bars(MARKET, wall)
    table = bars.between("EURUSD", 0, 0, 2**40, (FIRST_S + 40 * 86_400) * 1000)
    assert table["time"].tolist() == [FIRST_S, FIRST_S + 31 * 86_400]
    assert len(bars.until("EURUSD", 60, FIRST_S - 1, 5, 10**12)) == 0
    week = bars.between("EURUSD", 604_800, 0, FIRST_S + 86_400 * 9, 10**12)
    assert week["time"][0] > FIRST_S


@pytest.mark.parametrize("symbol", sorted(INSTRUMENTS))
def test_prices_stay_realistic_from_2000_to_2100(symbol: str) -> None:
    instrument = INSTRUMENTS[symbol]
    minutes = np.arange(15_778_080, 68_374_080, 1440 * 5 + 7)
    ratio = MARKET.minutes(symbol, minutes).open / (instrument.price * instrument.scale)
    assert 0.2 < ratio.min() < 1 < ratio.max() < 5
    spread = MARKET.quotes(symbol, minutes[:50] * MINUTE_MS)
    assert np.all((spread["ask"] - spread["bid"]) * instrument.scale > 0.5)


def test_crosses_agree_with_their_legs() -> None:
    minutes = np.arange(29_000_000, 29_100_000, 997)

    def price(symbol: str) -> Any:
        return MARKET.minutes(symbol, minutes).open / INSTRUMENTS[symbol].scale

    ratio = price("GBPJPY") / (price("GBPUSD") * price("USDJPY"))
    assert np.allclose(ratio, 1.0, atol=1e-3)
