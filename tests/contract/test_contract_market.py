import json
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from typing import Any

import numpy as np
import pytest

API = json.loads(files("terminal_sim").joinpath("mt5_api.json").read_text())
SYMBOL = "EURUSD"
RATES = np.dtype([tuple(column) for column in API["rates_dtype"]])
TICKS = np.dtype([tuple(column) for column in API["ticks_dtype"]])
TIMEFRAMES = [name for name in API["constants"] if name.startswith("TIMEFRAME_")]


def test_30_symbols_are_listed_counted_and_filtered(mt5: Any) -> None:
    names = [row.name for row in mt5.symbols_get()]
    assert mt5.symbols_total() == len(names)
    assert SYMBOL in names
    dollars = [row.name for row in mt5.symbols_get("*USD*,!EUR*")]
    assert dollars == [name for name in names if "USD" in name and not name.startswith("EUR")]
    assert [row.name for row in mt5.symbols_get(group=SYMBOL)] == [SYMBOL]


def test_31_symbol_info_has_every_field_in_order(mt5: Any) -> None:
    info = mt5.symbol_info(SYMBOL)
    assert list(info._asdict()) == API["structs"]["SymbolInfo"]
    assert info.point == pytest.approx(10**-info.digits)
    assert 0 < info.bidlow <= info.bid <= info.bidhigh
    assert info.bid < info.ask


def test_32_a_tick_has_every_field_in_order(mt5: Any) -> None:
    tick = mt5.symbol_info_tick(SYMBOL)
    assert list(tick._asdict()) == API["structs"]["Tick"]
    assert tick.time == tick.time_msc // 1000
    assert tick.bid < tick.ask


@pytest.mark.parametrize("call", ["symbol_info", "symbol_info_tick"])
def test_33_an_unknown_symbol_is_none_and_not_found(mt5: Any, call: str) -> None:
    assert getattr(mt5, call)("NOSUCH") is None
    assert mt5.last_error()[0] == mt5.eval("mt5.RES_E_NOT_FOUND")


def test_34_symbol_select_says_whether_it_worked(mt5: Any) -> None:
    assert mt5.symbol_select(SYMBOL, True) is True
    assert mt5.symbol_select("NOSUCH", True) is False


@pytest.mark.parametrize("timeframe", TIMEFRAMES)
def test_35_bars_of_every_timeframe_ascend(mt5: Any, timeframe: str) -> None:
    bars = mt5.copy_rates_from_pos(SYMBOL, getattr(mt5, timeframe), 0, 10)
    assert bars.dtype == RATES
    assert len(bars) == 10
    assert np.all(np.diff(bars["time"]) > 0)
    assert np.all(bars["low"] <= np.minimum(bars["open"], bars["close"]))
    assert np.all(bars["high"] >= np.maximum(bars["open"], bars["close"]))


def test_36_the_three_ways_to_bars_agree(mt5: Any) -> None:
    by_place = mt5.copy_rates_from_pos(SYMBOL, mt5.TIMEFRAME_H1, 1, 5)
    first, last = (datetime.fromtimestamp(int(by_place["time"][i]), UTC) for i in (0, -1))
    by_date = mt5.copy_rates_from(SYMBOL, mt5.TIMEFRAME_H1, last, 5)
    by_range = mt5.copy_rates_range(SYMBOL, mt5.TIMEFRAME_H1, first, last)
    assert by_place.tolist() == by_date.tolist() == by_range.tolist()


def test_37_ticks_make_the_bar_of_their_minute(mt5: Any) -> None:
    bar = mt5.copy_rates_from_pos(SYMBOL, mt5.TIMEFRAME_M1, 2, 1)[0]
    start = datetime.fromtimestamp(int(bar["time"]), UTC)
    ticks = mt5.copy_ticks_range(SYMBOL, start, start + timedelta(seconds=59), mt5.COPY_TICKS_ALL)
    assert ticks.dtype == TICKS
    assert ticks["bid"][0] == bar["open"]
    assert ticks["bid"].min() >= bar["low"]
    assert ticks["bid"].max() <= bar["high"]


def test_38_ticks_from_a_date_are_counted_from_there(mt5: Any) -> None:
    start = datetime.now(UTC) - timedelta(hours=5)
    ticks = mt5.copy_ticks_from(SYMBOL, start, 7, mt5.COPY_TICKS_INFO)
    assert len(ticks) == 7
    assert ticks["time"][0] >= int(start.timestamp())
    assert np.all(np.diff(ticks["time_msc"]) >= 0)


def test_39_bars_of_an_unknown_symbol_are_none(mt5: Any) -> None:
    assert mt5.copy_rates_from_pos("NOSUCH", mt5.TIMEFRAME_H1, 0, 5) is None
    assert mt5.last_error()[0] < 0


def test_40_a_range_of_the_future_is_empty(mt5: Any) -> None:
    start = datetime.now(UTC) + timedelta(days=30)
    bars = mt5.copy_rates_range(SYMBOL, mt5.TIMEFRAME_H1, start, start + timedelta(days=1))
    assert bars.dtype == RATES
    assert len(bars) == 0
