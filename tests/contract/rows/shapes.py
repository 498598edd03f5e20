"""050-099: the eleven result structs, their fields and types."""

import pytest
from tests.contract.case import STRUCTS, Case
from tests.contract.catalogue import Need, family, row
from tests.contract.clients import Fields, every, values
from tests.contract.trading import filled, market, placed

# Each field's type in order: whole number, float, string, bool, struct. Read off the examples in
# the package's documentation (mql5.com/en/docs/python_metatrader5).
KINDS = {"i": int, "f": float, "s": str, "b": bool}
TYPES = {
    "AccountInfo": "iiiiibbiib" + "f" * 14 + "ssss",
    "TerminalInfo": "bbbbbbbbbb" + "iiii" + "ff" + "ssssss",
    "TradePosition": "i" * 9 + "f" * 7 + "sss",
    "TradeOrder": "i" * 14 + "f" * 7 + "sss",
    "TradeDeal": "i" * 9 + "f" * 6 + "sss",
    "Tick": "ifffiiif",
    "BookInfo": "ifif",
    "SymbolInfo": "bibbiiiiiiiii" + "b" + "i" * 10 + "b" + "i" * 6 + "f" * 52 + "s" * 13,
    "TradeRequest": "iiis" + "fffff" + "iiiii" + "s" + "ii",
}
HELD = {"OrderSendResult": "iii" + "ffff" + "s" + "ii", "OrderCheckResult": "i" + "f" * 6 + "s"}


def shaped(fields: Fields, name: str) -> None:
    """Assert a struct's field names, order and types."""
    assert list(fields) == STRUCTS[name]
    for (field, value), kind in zip(fields.items(), TYPES[name], strict=True):
        assert type(value) is KINDS[kind], f"{name}.{field} is {value!r}"


@row(50, "AccountInfo: 28 fields, their order and types", core=True)
def account_info(case: Case) -> None:
    shaped(case.client.account(), "AccountInfo")


@row(51, "TerminalInfo: 22 fields, their order and types", Need.MODULE)
def terminal_info(case: Case) -> None:
    shaped(values(case.mt5.terminal_info()), "TerminalInfo")


@row(52, "TradePosition: 19 fields, their order and types", core=True)
def positions(case: Case) -> None:
    for fields in case.client.positions() or case.lacks("position"):
        shaped(fields, "TradePosition")


@row(53, "TradeOrder: 24 fields, their order and types (pending)")
def orders(case: Case) -> None:
    for fields in case.client.orders() or case.lacks("pending order"):
        shaped(fields, "TradeOrder")


@row(54, "TradeOrder: 24 fields, their order and types (done)")
def done_orders(case: Case) -> None:
    for fields in case.client.done_orders(0, 2**32)[:20] or case.lacks("done order"):
        shaped(fields, "TradeOrder")


@row(55, "TradeDeal: 18 fields, their order and types")
def deals(case: Case) -> None:
    for fields in case.client.deals(0, 2**32)[:20] or case.lacks("deal"):
        shaped(fields, "TradeDeal")


@row(56, "SymbolInfo: 96 fields, their order and types", Need.MODULE)
def symbol_info(case: Case) -> None:
    shaped(values(case.mt5.symbol_info(case.target.symbol)), "SymbolInfo")


@row(57, "Tick: 8 fields, their order and types", Need.MODULE, core=True)
def tick(case: Case) -> None:
    shaped(values(case.mt5.symbol_info_tick(case.target.symbol)), "Tick")


@row(58, "BookInfo: 4 fields, their order and types", Need.MODULE)
def book(case: Case) -> None:
    assert case.mt5.market_book_add(case.target.symbol)
    levels = every(case.mt5, case.mt5.market_book_get(case.target.symbol))
    for fields in levels or case.lacks("depth of market"):
        shaped(fields, "BookInfo")
    assert case.mt5.eval(f"mt5.market_book_release({case.target.symbol!r})")


@row(59, "OrderCheckResult: 9 fields, their order and types", Need.MODULE)
def check_result(case: Case) -> None:
    held(case, case.mt5.order_check(market(case)), "OrderCheckResult")


@row(60, "OrderSendResult: 11 fields, their order and types", Need.MODULE, Need.TRADING)
def send_result(case: Case) -> None:
    held(case, placed(case), "OrderSendResult")


@row(61, "TradeRequest: 17 fields, what was asked, and their types", Need.MODULE)
def request(case: Case) -> None:
    asked = market(case) | {"magic": 2**40, "comment": "asked"}
    fields = values(case.mt5.order_check(asked).request)
    shaped(fields, "TradeRequest")
    assert {name: fields[name] for name in asked} == asked


def held(case: Case, result: object, name: str) -> None:
    """Assert the shape of a result that holds its request."""
    fields = filled(result, STRUCTS[name])
    for field, kind in zip(
        (field for field in STRUCTS[name] if field != "request"), HELD[name], strict=True
    ):
        assert type(fields[field]) is KINDS[kind], f"{name}.{field} is {fields[field]!r}"
    shaped(fields["request"], "TradeRequest")


@family(62, "{} is a type of the module's", STRUCTS, Need.MODULE)
def types(case: Case, name: str) -> None:
    assert case.mt5.eval(f"mt5.{name}.__name__") == name


@row(73, "structs are tuples of `builtins` without `_fields`", Need.MODULE)
def tuples(case: Case) -> None:
    mt5 = case.mt5
    assert mt5.eval("isinstance(mt5.account_info(), tuple)")
    assert mt5.eval("type(mt5.account_info()).__module__") == "builtins"
    assert not mt5.eval("hasattr(mt5.account_info(), '_fields')")
    assert mt5.eval("mt5.account_info()[0] == mt5.account_info().login")
    assert repr(mt5.account_info()).startswith("AccountInfo(login=")


@row(74, "structs cannot be pickled", Need.MODULE)
def not_pickled(case: Case) -> None:
    with pytest.raises(Exception, match=r"pickle"):
        case.mt5.eval("__import__('pickle').dumps(mt5.account_info())")


@row(75, "structs cannot be written to", Need.MODULE)
def read_only(case: Case) -> None:
    with pytest.raises((AttributeError, TypeError)):
        case.mt5.eval("setattr(mt5.account_info(), 'balance', 0.0)")
