"""Requests for the trading rows, all of the smallest volume and with a magic of their own."""

from typing import Any, Final

from tests.contract.case import STRUCTS, Case
from tests.contract.clients import Fields, every, values

# By this the matrix knows its own positions and orders, and touches no others.
MAGIC: Final = 770_313
COMMENT: Final = "contract"
DONE: Final = 10009
# Share of the price: no market gets there before the row is over, no broker minds it.
FAR: Final = 0.1


def request(case: Case, action: str, **fields: Any) -> Fields:
    """A request with the matrix's magic."""
    return {"action": case.constant(f"TRADE_ACTION_{action}"), "magic": MAGIC} | fields


def market(case: Case, side: str = "BUY", *, times: int = 1, **fields: Any) -> Fields:
    """A market order of `times` the smallest volume."""
    symbol = case.target.symbol
    info = values(case.mt5.symbol_info(symbol))
    asked = {
        "symbol": symbol,
        "volume": round(info["volume_min"] * times, 8),
        "type": case.constant(f"ORDER_TYPE_{side}"),
        "price": info["ask"] if side == "BUY" else info["bid"],
        "deviation": 100,
        "type_filling": filling(case, info["filling_mode"]),
        "comment": COMMENT,
    }
    return request(case, "DEAL", **(asked | fields))


def pending(case: Case, kind: str, **fields: Any) -> Fields:
    """A pending order far from the market; `kind` as in ``ORDER_TYPE_BUY_LIMIT``."""
    info = values(case.mt5.symbol_info(case.target.symbol))
    below = kind in {"BUY_LIMIT", "SELL_STOP"}
    asked = {
        "symbol": case.target.symbol,
        "volume": info["volume_min"],
        "type": case.constant(f"ORDER_TYPE_{kind}"),
        "price": round(info["bid"] * (1 - FAR if below else 1 + FAR), info["digits"]),
        "type_filling": case.constant("ORDER_FILLING_RETURN"),
        "comment": COMMENT,
    }
    return request(case, "PENDING", **(asked | fields))


def closing(case: Case, position: Fields, **fields: Any) -> Fields:
    """A market order that closes a position."""
    bought = position["type"] == case.constant("POSITION_TYPE_BUY")
    side = "SELL" if bought else "BUY"
    given = {"symbol": position["symbol"], "volume": position["volume"]}
    return market(case, side, position=position["ticket"], **(given | fields))


def filling(case: Case, mode: int) -> int:
    """A filling the symbol allows; bit 1 of its `filling_mode` is FOK, bit 2 IOC."""
    name = "FOK" if mode & 1 else "IOC" if mode & 2 else "RETURN"
    return case.constant(f"ORDER_FILLING_{name}")


def filled(result: Any, names: list[str]) -> Fields:
    """The fields of a struct that holds its request, both by value."""
    assert result is not None, "there is no result"
    return {
        name: values(result.request) if name == "request" else getattr(result, name)
        for name in names
    }


def send(case: Case, asked: Fields) -> Fields:
    """What `order_send` answers."""
    result = case.mt5.order_send(asked)
    assert result is not None, case.mt5.last_error()
    return filled(result, STRUCTS["OrderSendResult"])


def checked(case: Case, asked: Fields) -> Fields:
    """What `order_check` answers."""
    result = case.mt5.order_check(asked)
    assert result is not None, case.mt5.last_error()
    return filled(result, STRUCTS["OrderCheckResult"])


def done(case: Case, asked: Fields) -> Fields:
    """What `order_send` answers to a request that it carries out."""
    result = send(case, asked)
    assert result["retcode"] == DONE, (result["retcode"], result["comment"])
    return result


def placed(case: Case) -> Any:
    """The result of buying, as it comes."""
    return case.mt5.order_send(market(case))


def refused(case: Case, asked: Fields, *retcodes: str) -> None:
    """Assert that a request ends in one of the retcodes and changes nothing."""
    before = held(case)
    result = send(case, asked)
    names = {case.constant(f"TRADE_RETCODE_{name}"): name for name in retcodes}
    assert result["retcode"] in names, (result["retcode"], result["comment"], retcodes)
    assert result["deal"] == 0
    assert held(case) == before


def held(case: Case) -> tuple[list[int], list[int]]:
    """Tickets of what the account holds, as the client sees it."""
    positions = sorted(row["ticket"] for row in case.client.positions())
    return positions, sorted(row["ticket"] for row in case.client.orders())


def position_of(case: Case, result: Fields) -> Fields:
    """The position a result opened, as the client sees it."""
    found: list[Fields] = []

    def there() -> bool:
        found[:] = [p for p in case.client.positions() if p["identifier"] == result["order"]]
        return bool(found)

    case.eventually(there)
    return found[0]


def order_of(case: Case, ticket: int) -> Fields | None:
    """A pending order, as the client sees it, or None."""
    return next((row for row in case.client.orders() if row["ticket"] == ticket), None)


def opened(case: Case, side: str = "BUY", *, times: int = 1, **fields: Any) -> Fields:
    """A position just opened, as the client sees it."""
    return position_of(case, done(case, market(case, side, times=times, **fields)))


def tidy(case: Case) -> None:
    """Close and remove everything the matrix has opened in the account that is in."""
    mt5 = case.mt5
    for order in every(mt5, mt5.orders_get()):
        if ours(order):
            done(case, request(case, "REMOVE", order=order["ticket"]))
    for position in every(mt5, mt5.positions_get()):
        if ours(position):
            done(case, closing(case, position))


def ours(row: Fields) -> bool:
    """Whether the matrix opened it; the package's helpers give no magic."""
    named: bool = row["magic"] == 0 and row["comment"] == COMMENT
    return named or row["magic"] == MAGIC
