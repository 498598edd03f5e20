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
from terminal_sim.market.extremes import smallest
from terminal_sim.market.instruments import INSTRUMENTS
from terminal_sim.market.paths import Path
from terminal_sim.market.prices import MINUTE_MS, Market
from terminal_sim.market.timeframes import span

MARKET = Market(99)
SPANS = {name: span(value) for name, value in catalogue().constants.items() if "FRAME_" in name}
SHORT = {name: length for name, length in SPANS.items() if length and length <= 3600}
LONG = {name: length for name, length in SPANS.items() if length is not None and name not in SHORT}
DAILY = {name: length for name, length in SPANS.items() if length and 3600 <= length <= 86_400}
# The clock is put forward on 2026-03-08 at 07:00 UTC and back on 2026-11-01 at 06:00 UTC.
SPRING_MS, AUTUMN_MS = 1_772_953_200_000, 1_793_512_800_000
RULES = st.sampled_from([EET_US, "UTC", "+05:30", "-03:00"])
INSTANTS = st.one_of(
    st.integers(978_307_200_000, 4_000_000_000_000),
    st.integers(SPRING_MS - 7_200_000, SPRING_MS + 36_000_000),
    st.integers(AUTUMN_MS - 7_200_000, AUTUMN_MS + 36_000_000),
)
MINUTES = st.integers(16_000_000, 60_000_000)
SHIFTS = st.lists(
    st.tuples(
        st.integers(-40 * 3600, 40 * 3600).map(lambda s: SPRING_MS + s * 1000),
        st.integers(-500, 500).map(lambda minutes: minutes * MINUTE_MS),
    ),
    max_size=3,
).map(lambda shifts: tuple(sorted(shifts)))
BOUNDED = settings(max_examples=30)


GOLDEN = [[108324, 108333, 113782], [108357, 108352, 113797], [108322, 108317, 113762]]
GOLDEN_TICKS = [
    (1740000000000, 2312.4, 2312.6),
    (1740000001766, 2312.31, 2312.53),
    (1740000059808, 2312.31, 2312.56),
]


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


@pytest.mark.long
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
    length, wall = LONG[name], WallClock(rule)
    bars = Bars(MARKET, wall)
    got = bars.latest(symbol, length, 0, 2, now_ms)
    # In the repeated hour the newest tick is not in the bar of the latest reading.
    in_order = wall.wall_ms(now_ms) == wall.latest_ms(now_ms)
    minutes = bars.between(symbol, 60, int(got["time"][0]), 2**40, now_ms)
    for bar, following in zip(got, [*got["time"][1:].tolist(), 2**40], strict=True):
        inside = minutes[(minutes["time"] >= bar["time"]) & (minutes["time"] < following)]
        assert bar["open"] == inside["open"][0]
        if in_order:
            assert bar["close"] == inside["close"][-1]
        assert bar["high"] == inside["high"].max()
        assert bar["low"] == inside["low"].min()
        assert bar["tick_volume"] == inside["tick_volume"].sum()
        assert bar["spread"] == inside["spread"].min()


@BOUNDED
@given(
    st.sampled_from(sorted(INSTRUMENTS)),
    MINUTES,
    st.lists(st.one_of(st.integers(1, 90), st.integers(1, 20_000)), min_size=1, max_size=12),
)
@example("BTCUSD", 29_000_000, [60] * 200)
@example("EURUSD", 29_000_001, [43_200, 1, 44_640])
@example("GBPJPY", 29_000_000, [10_080] * 3)
def test_searched_bars_are_the_aggregation_of_every_minute(
    symbol: str, start: int, lengths: list[int]
) -> None:
    edges = start + np.cumsum([0, *lengths])
    got = MARKET.bars(symbol, edges)
    every = MARKET.minutes(symbol, np.arange(edges[0], edges[-1]))
    first = edges[:-1] - edges[0]
    assert got.minute.tolist() == edges[:-1].tolist()
    assert got.open.tolist() == every.open[first].tolist()
    assert got.close.tolist() == every.close[edges[1:] - edges[0] - 1].tolist()
    assert got.high.tolist() == np.maximum.reduceat(every.high, first).tolist()
    assert got.low.tolist() == np.minimum.reduceat(every.low, first).tolist()
    assert got.ticks.tolist() == np.add.reduceat(every.ticks, first).tolist()
    assert got.spread.tolist() == np.minimum.reduceat(every.spread, first).tolist()


def test_the_smallest_value_is_found_wherever_it_is() -> None:
    edges = np.array([1000, 1007, 1300, 1301])
    for lowest in range(edges[0], edges[-1]):
        values = np.full(edges[-1], 9)
        values[1020], values[lowest] = 4, 3
        got = smallest(values.__getitem__, edges, 3)
        assert got.tolist() == np.minimum.reduceat(values[1000:], edges[:-1] - 1000).tolist()


@BOUNDED
@given(st.sampled_from(sorted(INSTRUMENTS)), st.integers(0, 5), MINUTES, st.data())
def test_no_price_leaves_the_bounds_of_its_piece(
    symbol: str, octave: int, minute: int, data: st.DataObject
) -> None:
    path, size = Path(99, INSTRUMENTS[symbol]), 4**octave
    block = minute // size * size
    start = block + data.draw(st.integers(0, size - 1))
    stop = data.draw(st.integers(start + 1, block + size))
    bounds = path.bounds(np.array([start]), np.array([stop]), octave)
    prices = path.at(np.arange(start, stop + 1))
    assert bounds.bottom[0] <= prices.min() <= prices.max() <= bounds.top[0]
    assert (bounds.first[0], bounds.last[0]) == (prices[0], prices[-1])


@BOUNDED
@given(
    st.sampled_from(sorted(LONG)),
    RULES,
    SHIFTS,
    st.lists(st.tuples(st.integers(-200_000, 200_000), st.integers(0, 40)), min_size=1, max_size=6),
)
@example("TIMEFRAME_H2", EET_US, (), [(0, 3), (-9000, 3), (9000, 3), (-20_000, 40)])
def test_bars_kept_are_the_bars_found_anew(
    name: str, rule: str, shifts: tuple[tuple[int, int], ...], asked: list[tuple[int, int]]
) -> None:
    length, wall = LONG[name], WallClock(rule, shifts)
    kept = Bars(MARKET, wall)
    for minutes, count in asked:
        now_ms = SPRING_MS + minutes * MINUTE_MS + 123
        got = kept.latest("EURUSD", length, 1, count + 1, now_ms)
        assert (
            got.tolist()
            == Bars(MARKET, wall).latest("EURUSD", length, 1, count + 1, now_ms).tolist()
        )


@BOUNDED
@given(st.sampled_from(sorted(DAILY)), RULES, SHIFTS)
@example("TIMEFRAME_H1", EET_US, ())
@example("TIMEFRAME_H2", "UTC", ((SPRING_MS + 30_000, -5_400_000),))
@example("TIMEFRAME_H1", "UTC", ((SPRING_MS, 1_860_000), (SPRING_MS + 20_000, -1_860_000)))
def test_long_bars_follow_every_change_of_the_clock(
    name: str, rule: str, shifts: tuple[tuple[int, int], ...]
) -> None:
    length, wall = DAILY[name], WallClock(rule, shifts)
    bars, now_ms = Bars(MARKET, wall), SPRING_MS + 48 * 3_600_000
    first_s = wall.wall_ms(SPRING_MS - 48 * 3_600_000) // 1000 // length * length
    got = bars.between("EURUSD", length, first_s, 2**40, now_ms)
    minute = np.arange(SPRING_MS // MINUTE_MS - 5 * 1440, now_ms // MINUTE_MS + 1)
    every = MARKET.minutes("EURUSD", minute)
    open_s = wall.walls_ms(minute * MINUTE_MS) // 1000 // length * length
    scale = INSTRUMENTS["EURUSD"].scale
    expected = {
        int(at): (every.open[open_s == at][0], every.high[open_s == at].max())
        for at in np.unique(open_s[open_s >= first_s])
    }
    assert got["time"].tolist() == sorted(expected)
    for bar in got[:-1]:
        opened, high = expected[int(bar["time"])]
        assert (bar["open"], bar["high"]) == (opened / scale, high / scale)


def test_bars_kept_stay_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("terminal_sim.market.long_bars._KEPT", 300)
    bars = Bars(MARKET, WallClock("UTC"))
    for count, symbol in ((100, "EURUSD"), (150, "XAUUSD"), (120, "EURUSD"), (400, "US30")) * 2:
        got = bars.latest(symbol, 86_400, 0, count, AUTUMN_MS)
        assert len(got) == count
        known = bars._long._known.values()
        assert sum(each.edges.size for each in known) <= 300
    assert len(known) < 3


def test_the_market_of_a_seed_stays_the_same() -> None:
    # Whoever changes this changes the prices of every scenario: say so in the changelog.
    bars = Market(20250101).minutes("EURUSD", np.array([15_778_080, 29_000_000, 60_000_000]))
    assert [bars.open.tolist(), bars.high.tolist(), bars.low.tolist()] == GOLDEN
    ticks = Market(20250101).ticks("XAUUSD", 29_000_000 * MINUTE_MS, 29_000_001 * MINUTE_MS)
    assert ticks[[0, 7, -1]].tolist() == GOLDEN_TICKS


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
@given(
    st.sampled_from(sorted(SPANS)),
    st.tuples(st.integers(0, 40), st.integers(1, 30)),
    RULES,
    INSTANTS,
    SHIFTS,
)
@example("TIMEFRAME_M30", (20, 30), EET_US, SPRING_MS + 36_000_000, ())
@example("TIMEFRAME_M1", (0, 30), EET_US, SPRING_MS + 60_000, ())
@example("TIMEFRAME_M5", (3, 30), EET_US, AUTUMN_MS + 600_000, ())
@example("TIMEFRAME_M1", (0, 30), "UTC", SPRING_MS + 900_000, ((SPRING_MS + 30_500, 3_600_000),))
@example(
    "TIMEFRAME_H1", (0, 5), "UTC", SPRING_MS + 10_800_000, ((SPRING_MS + 1_800_000, 5_400_000),)
)
@example("TIMEFRAME_H2", (0, 30), "UTC", SPRING_MS + 10_800_000, ((SPRING_MS + 1, 28_020_000),))
def test_places_count_existing_bars_from_the_newest(
    name: str, place: tuple[int, int], rule: str, now_ms: int, shifts: tuple[tuple[int, int], ...]
) -> None:
    # A clock knows of no shift that is yet to come.
    happened = tuple((at_ms, by_ms) for at_ms, by_ms in shifts if at_ms <= now_ms)
    length, bars, (skip, count) = SPANS[name], Bars(MARKET, WallClock(rule, happened)), place
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
