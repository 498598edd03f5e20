"""430-439: orders and stops that the market comes to; only where the market never rests."""

from collections.abc import Callable

from tests.contract.case import EVER, Case
from tests.contract.catalogue import Need, row
from tests.contract.clients import Fields
from tests.contract.trading import COMMENT, DONE, opened, pending, position_of, request, send

# So near that the next ticks get there, on whichever side.
NEAR_POINTS = 2
# Prices may stay within a few points for a while.
CROSSED_S = 60.0


def in_time(case: Case, ask: Callable[[], Fields], too_late: str) -> tuple[Fields, Fields]:
    """Ask for something close to the market until it is there first; the request, the result."""
    for _ in range(100):
        asked = ask()
        result = send(case, asked)
        if result["retcode"] == DONE:
            return asked, result
        assert result["retcode"] == case.constant(f"TRADE_RETCODE_{too_late}"), result
    raise AssertionError("the market was always faster")


@row(430, "a limit order that the market crosses is filled", Need.TRADING, Need.CONTROL)
def limits(case: Case) -> None:
    symbol = case.target.symbol
    info = case.mt5.symbol_info(symbol)
    away, digits = NEAR_POINTS * info.point, info.digits

    def below() -> Fields:
        price = round(case.mt5.symbol_info_tick(symbol).ask - away, digits)
        return pending(case, "BUY_LIMIT", price=price)

    def above() -> Fields:
        price = round(case.mt5.symbol_info_tick(symbol).bid + away, digits)
        return pending(case, "SELL_LIMIT", price=price)

    asked = {
        result["order"]: request
        for request, result in (in_time(case, ask, "INVALID_PRICE") for ask in (below, above))
    }

    def left() -> set[int]:
        return asked.keys() - {order["ticket"] for order in case.client.orders()}

    case.eventually(left, CROSSED_S)
    ticket = min(left())
    position = position_of(case, {"order": ticket})
    bought = position["type"] == case.constant("POSITION_TYPE_BUY")
    assert position["type"] == asked[ticket]["type"] - case.constant("ORDER_TYPE_BUY_LIMIT")
    better = asked[ticket]["price"] - position["price_open"]
    assert better >= 0 if bought else better <= 0
    assert position["comment"] == COMMENT
    done = next(o for o in case.client.done_orders(*EVER) if o["ticket"] == ticket)
    assert done["state"] == case.constant("ORDER_STATE_FILLED")


@row(431, "stops that the market crosses close the position", Need.TRADING, Need.CONTROL)
def stops(case: Case) -> None:
    position = opened(case)
    ticket, symbol = position["ticket"], position["symbol"]
    info = case.mt5.symbol_info(symbol)
    away, digits = NEAR_POINTS * info.point, info.digits

    def around() -> Fields:
        bid = case.mt5.symbol_info_tick(symbol).bid
        sl, tp = round(bid - away, digits), round(bid + away, digits)
        return request(case, "SLTP", position=ticket, symbol=symbol, sl=sl, tp=tp)

    asked, _result = in_time(case, around, "INVALID_STOPS")
    case.eventually(
        lambda: ticket not in [held["ticket"] for held in case.client.positions()], CROSSED_S
    )
    deals = [d for d in case.client.deals(*EVER) if d["position_id"] == position["identifier"]]
    closed = deals[-1]
    assert closed["entry"] == case.constant("DEAL_ENTRY_OUT")
    if closed["reason"] == case.constant("DEAL_REASON_SL"):
        assert closed["price"] <= asked["sl"]
        assert closed["comment"].startswith("[sl")
    else:
        assert closed["reason"] == case.constant("DEAL_REASON_TP")
        assert closed["price"] >= asked["tp"]
        assert closed["comment"].startswith("[tp")
