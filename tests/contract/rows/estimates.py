"""350-359: order_calc_margin() and order_calc_profit()."""

import pytest
from tests.contract.case import Case
from tests.contract.catalogue import Need, family, row

SIDES = ("BUY", "SELL")


@family(350, "order_calc_margin() of {} is positive and grows with the volume", SIDES, Need.MODULE)
def margin(case: Case, side: str) -> None:
    symbol, kind = case.target.symbol, case.constant(f"ORDER_TYPE_{side}")
    price = case.mt5.symbol_info_tick(symbol).ask
    one = case.mt5.order_calc_margin(kind, symbol, 0.1, price)
    ten = case.mt5.order_calc_margin(kind, symbol, 1.0, price)
    assert one > 0
    assert ten == pytest.approx(10 * one, rel=1e-2)


@row(
    352,
    "order_calc_margin() of a currency pair is its volume by leverage",
    Need.CONTROL,
    Need.MODULE,
)
def leverage(case: Case) -> None:
    # At the present price: whether another one is used for the conversion is the broker's affair.
    price = case.mt5.symbol_info_tick("EURUSD").ask
    found = case.mt5.order_calc_margin(0, "EURUSD", 0.1, price)
    assert found == pytest.approx(0.1 * 100_000 * price / 100, rel=1e-3)


@family(353, "order_calc_profit() of {} has the sign of its way", SIDES, Need.MODULE)
def profit(case: Case, side: str) -> None:
    symbol, kind = case.target.symbol, case.constant(f"ORDER_TYPE_{side}")
    info = case.mt5.symbol_info(symbol)
    opened, way = info.bid, 100 * info.point
    up = case.mt5.order_calc_profit(kind, symbol, 1.0, opened, opened + way)
    down = case.mt5.order_calc_profit(kind, symbol, 1.0, opened, opened - way)
    sign = 1 if side == "BUY" else -1
    assert up * sign > 0
    assert down == pytest.approx(-up, rel=0.05, abs=0.02)


@row(355, "order_calc_profit() is ticks by their value", Need.MODULE)
def tick_value(case: Case) -> None:
    symbol = case.target.symbol
    info = case.mt5.symbol_info(symbol)
    opened, ticks = info.bid, 300
    closed = opened + ticks * info.trade_tick_size
    found = case.mt5.order_calc_profit(0, symbol, 1.0, opened, closed)
    assert found == pytest.approx(ticks * info.trade_tick_value, rel=0.02)


@row(356, "estimates of an unknown symbol, kind, volume or price are None", Need.MODULE)
def refused(case: Case) -> None:
    symbol = case.target.symbol
    for call in (
        "order_calc_margin(0, 'NOSUCH', 0.1, 1.0)",
        f"order_calc_margin(99, {symbol!r}, 0.1, 1.0)",
        f"order_calc_margin(0, {symbol!r}, float('nan'), 1.0)",
        f"order_calc_margin(0, {symbol!r}, -1.0, 1.0)",
        "order_calc_profit(0, 'NOSUCH', 0.1, 1.0, 1.1)",
        f"order_calc_profit(2, {symbol!r}, 0.1, 1.0, 1.1)",
        f"order_calc_profit(0, {symbol!r}, 0.1, float('nan'), 1.1)",
        f"order_calc_profit(0, {symbol!r}, 'x', 1.0, 1.1)",
    ):
        assert case.mt5.eval(f"mt5.{call}") is None, call
        assert case.error() < 0, call
