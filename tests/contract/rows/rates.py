"""200-249: bars of every timeframe, and ticks of the past."""

from datetime import UTC, datetime, timedelta

import numpy as np
from tests.contract.case import API, CONSTANTS, Case
from tests.contract.catalogue import Need, family, row

RATES = np.dtype([tuple(column) for column in API["rates_dtype"]])
TICKS = np.dtype([tuple(column) for column in API["ticks_dtype"]])
TIMEFRAMES = [name for name in CONSTANTS if name.startswith("TIMEFRAME_")]


def moment(seconds: int) -> datetime:
    """A bar's time as mt5linux wants it."""
    return datetime.fromtimestamp(int(seconds), UTC)


@family(200, "bars of {} ascend and are whole", TIMEFRAMES, Need.MODULE)
def bars(case: Case, timeframe: str) -> None:
    found = case.mt5.copy_rates_from_pos(case.target.symbol, CONSTANTS[timeframe], 0, 10)
    assert found.dtype == RATES
    assert len(found) == 10
    assert np.all(np.diff(found["time"]) > 0)
    assert np.all(found["low"] <= np.minimum(found["open"], found["close"]))
    assert np.all(found["high"] >= np.maximum(found["open"], found["close"]))
    assert np.all(found["tick_volume"] > 0)


@row(221, "the three ways to bars agree", Need.MODULE, core=True)
def three_ways(case: Case) -> None:
    mt5, symbol, hour = case.mt5, case.target.symbol, CONSTANTS["TIMEFRAME_H1"]
    by_place = mt5.copy_rates_from_pos(symbol, hour, 1, 5)
    first, last = moment(by_place["time"][0]), moment(by_place["time"][-1])
    by_date = mt5.copy_rates_from(symbol, hour, last, 5)
    by_range = mt5.copy_rates_range(symbol, hour, first, last)
    assert by_place.tolist() == by_date.tolist() == by_range.tolist()


@row(222, "the newest bar ends with the newest tick", Need.MODULE)
def newest(case: Case) -> None:
    symbol = case.target.symbol
    for _ in range(50):
        before = case.mt5.symbol_info_tick(symbol).bid
        bar = case.mt5.copy_rates_from_pos(symbol, CONSTANTS["TIMEFRAME_D1"], 0, 1)[0]
        if case.mt5.symbol_info_tick(symbol).bid == before:
            break
    assert bar["close"] == before


@row(223, "five minutes are one M5 bar", Need.MODULE)
def aggregate(case: Case) -> None:
    mt5, symbol = case.mt5, case.target.symbol
    five = mt5.copy_rates_from_pos(symbol, CONSTANTS["TIMEFRAME_M5"], 2, 1)[0]
    start = moment(five["time"])
    one = mt5.copy_rates_range(
        symbol, CONSTANTS["TIMEFRAME_M1"], start, start + timedelta(minutes=4)
    )
    assert one["open"][0] == five["open"]
    assert one["close"][-1] == five["close"]
    assert one["low"].min() == five["low"]
    assert one["high"].max() == five["high"]
    assert one["tick_volume"].sum() == five["tick_volume"]


@row(224, "ticks make the bar of their minute", Need.MODULE)
def ticks_make_bars(case: Case) -> None:
    mt5, symbol = case.mt5, case.target.symbol
    bar = mt5.copy_rates_from_pos(symbol, CONSTANTS["TIMEFRAME_M1"], 2, 1)[0]
    start = moment(bar["time"])
    end = start + timedelta(minutes=1)
    ticks = mt5.copy_ticks_range(symbol, start, end, CONSTANTS["COPY_TICKS_ALL"])
    assert ticks.dtype == TICKS
    bids = ticks["bid"][ticks["time"] < end.timestamp()]
    assert bids[0] == bar["open"]
    assert bar["low"] <= bids.min()
    assert bids.max() <= bar["high"]
    if case.target.simulated:  # brokers keep fewer ticks than there were
        assert (bids.min(), bids.max(), bids[-1]) == (bar["low"], bar["high"], bar["close"])
        assert len(bids) == bar["tick_volume"]


@row(225, "ticks from a date are counted from there", Need.MODULE, core=True)
def ticks_from(case: Case) -> None:
    start = moment(case.mt5.symbol_info_tick(case.target.symbol).time) - timedelta(hours=1)
    flags = CONSTANTS["COPY_TICKS_INFO"]
    ticks = case.mt5.copy_ticks_from(case.target.symbol, start, 7, flags)
    assert ticks.dtype == TICKS
    assert len(ticks) == 7
    assert ticks["time"][0] >= int(start.timestamp())
    minute = case.mt5.copy_ticks_range(
        case.target.symbol, start, start + timedelta(minutes=1), flags
    )[:7]
    assert len(minute) == 7 or not case.target.simulated  # at a broker the market may be closed
    assert ticks[: len(minute)].tolist() == minute.tolist()
    assert np.all(np.diff(ticks["time_msc"]) >= 0)
    assert np.all(ticks["time"] == ticks["time_msc"] // 1000)


@row(226, "the last tick of the past is the newest one", Need.MODULE)
def last_tick(case: Case) -> None:
    symbol = case.target.symbol
    for _ in range(50):
        newest = case.mt5.symbol_info_tick(symbol)
        at, bid = newest.time_msc, newest.bid
        start = moment(at // 1000)
        found = case.mt5.copy_ticks_range(
            symbol, start, start + timedelta(seconds=5), CONSTANTS["COPY_TICKS_ALL"]
        )
        if case.mt5.symbol_info_tick(symbol).time_msc == at:
            break
    assert (found["time_msc"][-1], found["bid"][-1]) == (at, bid)


@row(227, "bars of an unknown symbol are None and an error", Need.MODULE)
def unknown(case: Case) -> None:
    assert case.mt5.copy_rates_from_pos("NOSUCH", CONSTANTS["TIMEFRAME_H1"], 0, 5) is None
    assert case.error() < 0


@row(228, "ticks of an unknown symbol are None and an error", Need.MODULE)
def unknown_ticks(case: Case) -> None:
    start = datetime.now(UTC) - timedelta(hours=1)
    assert case.mt5.copy_ticks_from("NOSUCH", start, 5, CONSTANTS["COPY_TICKS_ALL"]) is None
    assert case.error() < 0


@row(229, "a range of the future is empty", Need.MODULE)
def future(case: Case) -> None:
    start = datetime.now(UTC) + timedelta(days=30)
    end = start + timedelta(days=1)
    found = case.mt5.copy_rates_range(case.target.symbol, CONSTANTS["TIMEFRAME_H1"], start, end)
    assert found.dtype == RATES
    assert len(found) == 0


@row(230, "bars before the first one are none, after the last one the last", Need.MODULE)
def out_of_range(case: Case) -> None:
    symbol = repr(case.target.symbol)
    assert case.mt5.eval(f"len(mt5.copy_rates_from({symbol}, 1, 0, 10))") == 0
    assert case.mt5.eval(f"len(mt5.copy_rates_from({symbol}, 16408, 2**32, 10))") == 10
    assert case.mt5.eval(f"len(mt5.copy_rates_from_pos({symbol}, 16408, 2**30, 10))") == 0


@row(231, "there are no bars before 2000", Need.CONTROL, Need.MODULE)
def epoch(case: Case) -> None:
    symbol = repr(case.target.symbol)
    assert case.mt5.eval(f"len(mt5.copy_rates_range({symbol}, 49153, 0, 946684799))") == 0
    assert case.mt5.eval(f"mt5.copy_rates_range({symbol}, 49153, 0, 946684800)['time'][0]") == (
        946684800
    )


@row(232, "answers of the same question are the same", Need.MODULE)
def repeatable(case: Case) -> None:
    ask = case.mt5.copy_rates_from_pos, case.target.symbol, CONSTANTS["TIMEFRAME_H4"], 5, 50
    call, *arguments = ask
    assert call(*arguments).tolist() == call(*arguments).tolist()
