"""460-499: what a broker refuses, and with which return code."""

from tests.contract.case import Case
from tests.contract.catalogue import Need, family, row
from tests.contract.clients import Fields
from tests.contract.trading import (
    checked,
    closing,
    done,
    held,
    market,
    opened,
    pending,
    refused,
    request,
    send,
)

NOWHERE = 1


@row(460, "a volume of zero is refused: INVALID_VOLUME", Need.TRADING)
def zero(case: Case) -> None:
    refused(case, market(case, volume=0.0), "INVALID_VOLUME")


@row(461, "a volume below the smallest is refused: INVALID_VOLUME", Need.TRADING)
def too_small(case: Case) -> None:
    asked = market(case)
    refused(case, asked | {"volume": asked["volume"] / 2}, "INVALID_VOLUME")


@row(462, "a volume off the step is refused: INVALID_VOLUME", Need.TRADING)
def off_step(case: Case) -> None:
    asked = market(case)
    step = case.mt5.symbol_info(asked["symbol"]).volume_step
    refused(case, asked | {"volume": asked["volume"] + step / 3}, "INVALID_VOLUME")


@row(463, "a volume above the largest is refused: INVALID_VOLUME", Need.TRADING)
def too_large(case: Case) -> None:
    asked = market(case)
    largest = case.mt5.symbol_info(asked["symbol"]).volume_max
    refused(case, asked | {"volume": largest * 2}, "INVALID_VOLUME")


@row(464, "NaN as a volume is never carried out", Need.TRADING, Need.MODULE)
def nan(case: Case) -> None:
    before = case.mt5.positions_total()
    text = repr(market(case, volume=0.0)).replace("'volume': 0.0", "'volume': float('nan')")
    assert "nan" in text
    result = case.mt5.eval(f"mt5.order_send({text})")
    if result is None:
        assert case.error() == case.constant("RES_E_INVALID_PARAMS")
    else:
        assert result.retcode == case.constant("TRADE_RETCODE_INVALID_VOLUME")
    assert case.mt5.positions_total() == before


@row(465, "more volume than the money allows is refused: NO_MONEY", Need.TRADING, Need.CONTROL)
def no_money(case: Case) -> None:
    refused(case, market(case, volume=40.0), "NO_MONEY")


WRONG_SIDE = ("BUY_LIMIT", "SELL_LIMIT", "BUY_STOP", "SELL_STOP")


@family(466, "a pending {} on the wrong side is refused: INVALID_PRICE", WRONG_SIDE, Need.TRADING)
def wrong_side(case: Case, kind: str) -> None:
    other = {"LIMIT": "STOP", "STOP": "LIMIT"}[kind.partition("_")[2]]
    price = pending(case, f"{kind.partition('_')[0]}_{other}")["price"]
    refused(case, pending(case, kind, price=price), "INVALID_PRICE")


@row(470, "a pending order without a price is refused: INVALID_PRICE", Need.TRADING)
def no_price(case: Case) -> None:
    refused(case, pending(case, "BUY_LIMIT", price=0.0), "INVALID_PRICE")


@family(471, "a {} on the wrong side is refused: INVALID_STOPS", ("sl", "tp"), Need.TRADING)
def wrong_stop(case: Case, field: str) -> None:
    asked = market(case)
    price = round(asked["price"] * (1.1 if field == "sl" else 0.9), 5)
    refused(case, asked | {field: price}, "INVALID_STOPS")


@row(473, "a position's stop on the wrong side is refused: INVALID_STOPS", Need.TRADING)
def wrong_change(case: Case) -> None:
    position = opened(case)
    given = {"position": position["ticket"], "symbol": position["symbol"]}
    sl = round(position["price_open"] * 1.1, 5)
    refused(case, request(case, "SLTP", sl=sl, **given), "INVALID_STOPS")


@row(474, "the same stops again are refused: NO_CHANGES", Need.TRADING)
def no_changes(case: Case) -> None:
    position = opened(case)
    given = {"position": position["ticket"], "symbol": position["symbol"]}
    refused(case, request(case, "SLTP", **given), "NO_CHANGES")


@row(475, "the stops of a position that is not there are refused: POSITION_CLOSED", Need.TRADING)
def no_position(case: Case) -> None:
    given = {"position": NOWHERE, "symbol": case.target.symbol, "sl": 0.5}
    refused(case, request(case, "SLTP", **given), "POSITION_CLOSED")


@row(476, "closing a position that is not there is refused: POSITION_CLOSED", Need.TRADING)
def close_nothing(case: Case) -> None:
    refused(case, market(case, position=NOWHERE), "POSITION_CLOSED")


@row(477, "closing a position twice is refused: POSITION_CLOSED", Need.TRADING)
def close_twice(case: Case) -> None:
    position = opened(case)
    asked = closing(case, position)
    done(case, asked)
    case.eventually(
        lambda: position["ticket"] not in [p["ticket"] for p in case.client.positions()]
    )
    refused(case, asked, "POSITION_CLOSED")


@row(478, "closing more than there is is refused: INVALID_CLOSE_VOLUME", Need.TRADING)
def close_too_much(case: Case) -> None:
    position = opened(case)
    asked = closing(case, position)
    refused(case, asked | {"volume": asked["volume"] * 2}, "INVALID_CLOSE_VOLUME")


@family(
    479,
    "{} of an order that is not there is refused: INVALID_ORDER",
    ("MODIFY", "REMOVE"),
    Need.TRADING,
)
def no_order(case: Case, action: str) -> None:
    asked = request(case, action, order=NOWHERE)
    refused(case, asked | ({"price": 0.5} if action == "MODIFY" else {}), "INVALID_ORDER")


@row(
    481, "a filling the symbol does not allow is refused: INVALID_FILL", Need.TRADING, Need.CONTROL
)
def wrong_filling(case: Case) -> None:
    filling = case.constant("ORDER_FILLING_RETURN")
    refused(case, market(case, type_filling=filling), "INVALID_FILL")


@row(482, "an expiration in the past is refused: INVALID_EXPIRATION", Need.TRADING)
def expired(case: Case) -> None:
    given = {"type_time": case.constant("ORDER_TIME_SPECIFIED"), "expiration": 1_000_000_000}
    refused(case, pending(case, "BUY_LIMIT", **given), "INVALID_EXPIRATION")


@row(483, "an action that does not exist is refused: INVALID", Need.TRADING)
def no_action(case: Case) -> None:
    refused(case, market(case) | {"action": 99}, "INVALID")


@row(484, "a symbol that does not exist is never traded", Need.TRADING)
def no_symbol(case: Case) -> None:
    # Which code is the broker's affair; that nothing is done is not.
    asked = market(case) | {"symbol": "NOSUCH"}
    before = case.client.positions()
    result = case.mt5.order_send(asked)
    retcode = None if result is None else result.retcode
    assert retcode != case.constant("TRADE_RETCODE_DONE")
    assert retcode is not None or case.error() < 0
    tickets = [p["ticket"] for p in before]
    assert [p["ticket"] for p in case.client.positions()] == tickets


@row(485, "a refused request is repeated in its result", Need.TRADING)
def repeated(case: Case) -> None:
    asked = market(case, volume=0.0)
    result = send(case, asked)
    assert {name: result["request"][name] for name in asked} == asked
    assert result["volume"] == 0
    assert result["comment"]


@row(486, "an investor may not trade: TRADE_DISABLED", Need.TRADING, Need.INVESTOR)
def investor(case: Case) -> None:
    asked = market(case)
    case.client.sign_in(case.target.home, password=case.target.home.investor)
    refused(case, asked, "TRADE_DISABLED")


def _fault(case: Case, **fields: object) -> Fields:
    made: Fields = case.control("POST", "/faults", json=fields)
    return made


@row(487, "with AutoTrading off nothing is traded: CLIENT_DISABLES_AT", Need.TRADING, Need.CONTROL)
def autotrading_off(case: Case) -> None:
    asked = market(case)
    _fault(case, name="autotrading_off", terminal=1)
    try:
        case.eventually(lambda: case.client.trade_permissions() == (True, False))
        refused(case, asked, "CLIENT_DISABLES_AT")
    finally:
        case.control("DELETE", "/faults")
    case.eventually(lambda: case.client.trade_permissions() == (True, True))
    done(case, market(case))


@row(488, "a closed market is not traded: MARKET_CLOSED", Need.TRADING, Need.CONTROL)
def market_closed(case: Case) -> None:
    asked = market(case)
    _fault(case, name="market_closed", server=case.target.home.server)
    try:
        refused(case, asked, "MARKET_CLOSED")
    finally:
        case.control("DELETE", "/faults")
    done(case, market(case))


@row(489, "a requote names new prices and trades nothing: REQUOTE", Need.TRADING, Need.CONTROL)
def requote(case: Case) -> None:
    asked, before = market(case), held(case)
    _fault(case, name="requote", server=case.target.home.server)
    try:
        result = send(case, asked)
    finally:
        case.control("DELETE", "/faults")
    assert result["retcode"] == case.constant("TRADE_RETCODE_REQUOTE")
    assert 0 < result["bid"] < result["ask"]
    assert result["deal"] == 0
    assert held(case) == before


@row(490, "without a broker figures stand still and connected is False", Need.CONTROL)
def standing_still(case: Case) -> None:
    elsewhere = case.another(1)
    case.at_home(elsewhere)

    def there() -> object:
        return elsewhere.symbol_info_tick(case.target.symbol).time_msc

    _fault(case, name="broker_disconnected", terminal=1)
    try:
        case.eventually(lambda: case.client.trade_permissions()[0] is False)
        before, tick = (case.client.account(), case.client.positions()), there()
        case.eventually(lambda: there() != tick)
        assert (case.client.account(), case.client.positions()) == before
    finally:
        case.control("DELETE", "/faults")
    case.eventually(lambda: case.client.trade_permissions()[0] is True)
    case.eventually(lambda: case.client.positions() != before[1])


@row(491, "without a broker nothing is traded: CONNECTION", Need.TRADING, Need.CONTROL)
def no_connection(case: Case) -> None:
    asked = market(case)
    _fault(case, name="broker_disconnected", terminal=1)
    try:
        case.eventually(lambda: case.client.trade_permissions()[0] is False)
        refused(case, asked, "CONNECTION")
        assert checked(case, asked)["retcode"] == case.constant("TRADE_RETCODE_CONNECTION")
    finally:
        case.control("DELETE", "/faults")
    case.eventually(lambda: case.client.trade_permissions()[0] is True)
    done(case, market(case))
