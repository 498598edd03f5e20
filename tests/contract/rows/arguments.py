"""250-339: what the functions do with arguments they cannot use."""

import pytest
from tests.contract.case import Case
from tests.contract.catalogue import Need, family, row

# EURUSD stands for the symbol of the target.
POSITIONAL = (
    "symbol_info(symbol='EURUSD')",
    "symbol_info_tick(symbol='EURUSD')",
    "symbol_select('EURUSD', enable=True)",
    "copy_rates_from('EURUSD', 1, 0, count=1)",
    "copy_rates_from_pos('EURUSD', 1, 0, count=1)",
    "copy_rates_range('EURUSD', 1, 0, date_to=1)",
    "copy_ticks_from('EURUSD', 0, 1, flags=-1)",
    "copy_ticks_range('EURUSD', 0, 1, flags=-1)",
    "history_deals_total(0, date_to=1)",
    "history_orders_total(0, date_to=1)",
    "market_book_add(symbol='EURUSD')",
    "market_book_get(symbol='EURUSD')",
    "market_book_release(symbol='EURUSD')",
    "order_calc_margin(0, 'EURUSD', 0.1, price=1.0)",
    "order_calc_profit(0, 'EURUSD', 0.1, 1.0, price_close=1.1)",
)
COUNTED = (
    "account_info(1)",
    "terminal_info(x=1)",
    "version(1)",
    "last_error(1)",
    "symbols_total(1)",
    "positions_total(1)",
    "orders_total(1)",
    "symbol_info()",
    "symbol_info_tick()",
    "copy_rates_from_pos('EURUSD', 1, 0)",
    "copy_ticks_from('EURUSD', 0, 1)",
    "history_deals_total(0)",
    "order_calc_margin(0, 'EURUSD', 0.1)",
    "order_calc_profit(0, 'EURUSD', 0.1, 1.0)",
    "market_book_add()",
    "positions_get(nonsense=1)",
)
WRONG = (
    "symbol_info(None)",
    "symbol_info_tick(7)",
    "symbols_get(group=5)",
    "copy_rates_from_pos('EURUSD', 'H1', 0, 10)",
    "copy_rates_from_pos('EURUSD', 7, 0, 10)",
    "copy_rates_from_pos('EURUSD', 1, -1, 10)",
    "copy_rates_from_pos('EURUSD', 1, 0, -10)",
    "copy_rates_from_pos('EURUSD', 1, 0, 0)",
    "copy_rates_from_pos('EURUSD', 1, 0, 2**80)",
    "copy_rates_from_pos('EURUSD', 1, 0, float('nan'))",
    "copy_rates_from('EURUSD', 1, 'yesterday', 10)",
    "copy_rates_from('EURUSD', 1, float('nan'), 10)",
    "copy_rates_from('EURUSD', 1, float('inf'), 10)",
    "copy_rates_range('EURUSD', 1, 2000000000, 1000000000)",
    "copy_ticks_from('EURUSD', 0, 0, -1)",
    "copy_ticks_from('EURUSD', 0, 1, 99)",
    "copy_ticks_range('EURUSD', 20, 10, -1)",
    "positions_get('EURUSD')",
    "positions_get(symbol=5)",
    "positions_get(ticket='x')",
    "positions_get(ticket=2**80)",
    "positions_get(group=None)",
    "orders_get('EURUSD')",
    "orders_get(ticket=-1)",
    "orders_get(symbol=5)",
    "history_deals_get(float('nan'), 5)",
    "history_deals_get(9, 5)",
    "history_deals_get(1)",
    "history_deals_get(ticket='x')",
    "history_orders_get(9, 5)",
    "history_orders_get(position='x')",
    "history_orders_total('a', 'b')",
    "history_deals_total(9, 5)",
)
LOGINS = (
    "login('5001001', password='x')",
    "login(2**63, password='x')",
    "login(-1, password='x')",
    "login(5001001, password=7)",
    "login(5001001, password='x', timeout=-1)",
    "login()",
    "login(float('nan'))",
    "initialize(7)",
)


def said(case: Case, call: str) -> str:
    """A call about the target's symbol."""
    return call.replace("EURUSD", case.target.symbol)


@family(250, "keywords it does not take are a TypeError: {}", POSITIONAL, Need.MODULE)
def no_keywords(case: Case, call: str) -> None:
    with pytest.raises(TypeError):
        case.mt5.eval(f"mt5.{said(case, call)}")


@family(265, "a wrong number of arguments is a TypeError: {}", COUNTED, Need.MODULE)
def wrong_number(case: Case, call: str) -> None:
    with pytest.raises(TypeError):
        case.mt5.eval(f"mt5.{said(case, call)}")


@family(285, "wrong arguments are None and -2: {}", WRONG, Need.MODULE)
def wrong(case: Case, call: str) -> None:
    case.refuses(said(case, call))


@family(
    320, "a login with wrong types is False and -2 and changes nothing: {}", LOGINS, Need.MODULE
)
def wrong_login(case: Case, call: str) -> None:
    case.refuses(call, value=False)
    assert case.mt5.account_info().login == case.target.home.login


@row(330, "an error is forgotten by the next call that succeeds", Need.MODULE)
def forgotten(case: Case) -> None:
    assert case.mt5.symbol_info("NOSUCH") is None
    assert case.mt5.account_info() is not None
    assert case.mt5.last_error() == (1, "Success")


@row(331, "last_error() does not change the last error", Need.MODULE)
def kept(case: Case) -> None:
    assert case.mt5.symbol_info("NOSUCH") is None
    assert case.mt5.last_error() == case.mt5.last_error() != (1, "Success")


@row(332, "a NUL or a lone surrogate in a symbol finds nothing", Need.MODULE)
def odd_texts(case: Case) -> None:
    for text in ("'EUR\\0USD'", "'\\ud800'", "''", "'x' * 10000"):
        assert case.mt5.eval(f"mt5.symbol_info({text}) is None"), text
        assert case.error() < 0
