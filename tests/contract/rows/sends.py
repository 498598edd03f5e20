"""400-459: order_send() on a hedging account."""

import pytest
from tests.contract.case import EVER, Case
from tests.contract.catalogue import Need, family, row
from tests.contract.trading import (
    COMMENT,
    DONE,
    MAGIC,
    closing,
    done,
    market,
    opened,
    order_of,
    pending,
    position_of,
    request,
)

SIDES = ("BUY", "SELL")
PENDING = ("BUY_LIMIT", "SELL_LIMIT", "BUY_STOP", "SELL_STOP")


@family(400, "{} at market opens a position", SIDES, Need.TRADING, core=True)
def open_position(case: Case, side: str) -> None:
    asked = market(case, side)
    result = done(case, asked)
    assert result["comment"] == "Request executed"
    assert result["deal"] > 0
    assert result["order"] > 0
    assert result["volume"] == asked["volume"]
    position = position_of(case, result)
    assert position["type"] == case.constant(f"POSITION_TYPE_{side}")
    assert position["volume"] == asked["volume"]
    assert position["price_open"] == result["price"]
    assert (position["magic"], position["comment"]) == (MAGIC, "contract")
    assert position["reason"] == case.constant("POSITION_REASON_EXPERT")


@row(402, "a deal at market is in the history with its order", Need.TRADING)
def in_history(case: Case) -> None:
    result = done(case, market(case))
    case.eventually(lambda: result["deal"] in [d["ticket"] for d in case.client.deals(*EVER)])
    deal = next(d for d in case.client.deals(*EVER) if d["ticket"] == result["deal"])
    assert deal["order"] == result["order"]
    assert deal["entry"] == case.constant("DEAL_ENTRY_IN")
    assert (deal["volume"], deal["price"]) == (result["volume"], result["price"])
    order = next(o for o in case.client.done_orders(*EVER) if o["ticket"] == result["order"])
    assert order["state"] == case.constant("ORDER_STATE_FILLED")
    assert order["volume_current"] == 0


@row(403, "closing a position takes it away and moves the balance", Need.TRADING, core=True)
def close_position(case: Case) -> None:
    position = opened(case)
    before = case.client.account()["balance"]
    result = done(case, closing(case, position))
    ticket = position["ticket"]
    case.eventually(lambda: ticket not in [p["ticket"] for p in case.client.positions()])
    deal = next(d for d in case.client.deals(*EVER) if d["ticket"] == result["deal"])
    assert deal["entry"] == case.constant("DEAL_ENTRY_OUT")
    assert deal["position_id"] == position["identifier"]
    moved = deal["profit"] + deal["swap"] + deal["commission"] + deal["fee"]
    if case.target.simulated:  # a real account may have other traders
        assert case.client.account()["balance"] == pytest.approx(before + moved, abs=0.01)


@row(404, "a part of a position can be closed, the rest keeps its ticket", Need.TRADING, core=True)
def partial_close(case: Case) -> None:
    position = opened(case, times=3)
    part = round(position["volume"] / 3, 8)
    done(case, closing(case, position, volume=part))
    rest = round(position["volume"] - part, 8)

    def volume() -> float:
        held = {p["ticket"]: p["volume"] for p in case.client.positions()}
        return float(held[position["ticket"]])

    case.eventually(lambda: volume() == pytest.approx(rest))
    deals = [d for d in case.client.deals(*EVER) if d["position_id"] == position["identifier"]]
    assert [d["volume"] for d in deals] == pytest.approx([position["volume"], part])


@row(405, "a hedging account holds opposite positions side by side", Need.TRADING)
def hedged(case: Case) -> None:
    bought, sold = opened(case, "BUY"), opened(case, "SELL")
    tickets = [p["ticket"] for p in case.client.positions()]
    assert bought["ticket"] != sold["ticket"]
    assert {bought["ticket"], sold["ticket"]} <= set(tickets)


@row(406, "stops of a position are set, moved and taken away", Need.TRADING, core=True)
def stops(case: Case) -> None:
    position = opened(case)
    price = position["price_open"]
    ticket, symbol = position["ticket"], position["symbol"]
    digits = case.mt5.symbol_info(symbol).digits
    for factor in (0.1, 0.2, None):
        sl = 0.0 if factor is None else round(price * (1 - factor), digits)
        tp = 0.0 if factor is None else round(price * (1 + factor), digits)
        done(case, request(case, "SLTP", position=ticket, symbol=symbol, sl=sl, tp=tp))

        def now(wanted: tuple[float, float] = (sl, tp)) -> bool:
            held = {p["ticket"]: (p["sl"], p["tp"]) for p in case.client.positions()}
            return held[ticket] == wanted

        case.eventually(now)


@row(407, "a market order brings its stops along", Need.TRADING)
def with_stops(case: Case) -> None:
    asked = market(case)
    digits = case.mt5.symbol_info(asked["symbol"]).digits
    sl, tp = round(asked["price"] * 0.9, digits), round(asked["price"] * 1.1, digits)
    position = opened(case, sl=sl, tp=tp)
    assert (position["sl"], position["tp"]) == (sl, tp)


@row(408, "an open position holds margin, a closed one gives it back", Need.TRADING, Need.CONTROL)
def margin(case: Case) -> None:
    before = case.client.account()["margin"]
    position = opened(case)
    # EURUSD is held already: nothing hedges it, so that all of it is charged.
    assert case.client.account()["margin"] > before
    done(case, closing(case, position))
    assert case.client.account()["margin"] == before


@family(410, "a pending {} is placed", PENDING, Need.TRADING, core=True)
def place(case: Case, kind: str) -> None:
    asked = pending(case, kind)
    result = done(case, asked)
    assert result["deal"] == 0
    case.eventually(lambda: order_of(case, result["order"]))
    order = order_of(case, result["order"])
    assert order is not None
    assert order["type"] == case.constant(f"ORDER_TYPE_{kind}")
    assert order["state"] == case.constant("ORDER_STATE_PLACED")
    assert order["price_open"] == asked["price"]
    assert order["volume_initial"] == order["volume_current"] == asked["volume"]
    assert (order["magic"], order["comment"]) == (MAGIC, "contract")


@row(414, "a pending order is modified", Need.TRADING)
def modify(case: Case) -> None:
    asked = pending(case, "BUY_LIMIT")
    ticket = done(case, asked)["order"]
    digits = case.mt5.symbol_info(asked["symbol"]).digits
    price = round(asked["price"] * 0.99, digits)
    sl = round(price * 0.9, digits)
    done(case, request(case, "MODIFY", order=ticket, price=price, sl=sl))

    def moved() -> bool:
        order = order_of(case, ticket)
        return order is not None and (order["price_open"], order["sl"]) == (price, sl)

    case.eventually(moved)


@row(415, "a pending order is removed and cancelled in the history", Need.TRADING, core=True)
def remove(case: Case) -> None:
    ticket = done(case, pending(case, "SELL_LIMIT"))["order"]
    done(case, request(case, "REMOVE", order=ticket))
    case.eventually(lambda: order_of(case, ticket) is None)
    found = next(o for o in case.client.done_orders(*EVER) if o["ticket"] == ticket)
    assert found["state"] == case.constant("ORDER_STATE_CANCELED")


@row(416, "a pending order keeps its expiration", Need.TRADING)
def expiration(case: Case) -> None:
    at = case.mt5.symbol_info_tick(case.target.symbol).time + 7 * 86_400
    at -= at % 60
    given = {"type_time": case.constant("ORDER_TIME_SPECIFIED"), "expiration": at}
    ticket = done(case, pending(case, "BUY_STOP", **given))["order"]
    case.eventually(lambda: order_of(case, ticket))
    order = order_of(case, ticket)
    assert order is not None
    assert order["type_time"] == case.constant("ORDER_TIME_SPECIFIED")
    assert order["time_expiration"] == at


@row(417, "deals still sum to the balance after trades", Need.TRADING, Need.CONTROL)
def sums(case: Case) -> None:
    position = opened(case, times=2)
    done(case, closing(case, position, volume=position["volume"] / 2))
    deals = [d for d in case.client.deals(*EVER) if d["type"] != case.constant("DEAL_TYPE_CREDIT")]
    total = sum(d["profit"] + d["swap"] + d["commission"] + d["fee"] for d in deals)
    assert total == pytest.approx(case.client.account()["balance"], abs=0.01)


@row(418, "tickets ascend", Need.TRADING)
def ascending(case: Case) -> None:
    tickets = [opened(case)["ticket"] for _ in range(3)]
    assert tickets == sorted(set(tickets))


@row(421, "the package's Buy(), Sell() and Close() trade", Need.TRADING, Need.MODULE)
def helpers(case: Case) -> None:
    symbol = case.target.symbol
    volume = case.mt5.symbol_info(symbol).volume_min
    for side in ("Buy", "Sell"):
        # A comment that the cleaning up knows: these take no magic.
        call = f"mt5.{side}({symbol!r}, {volume!r}, comment={COMMENT!r})"
        order, retcode = case.mt5.eval(f"(lambda r: (r.order, r.retcode))({call})")
        assert retcode == DONE
        position = position_of(case, {"order": order})
        assert position["type"] == case.constant(f"POSITION_TYPE_{side.upper()}")
        assert position["volume"] == volume
        assert case.mt5.eval(f"mt5.Close({symbol!r}, ticket={order})") is True
        assert order not in [p["ticket"] for p in case.client.positions()]
