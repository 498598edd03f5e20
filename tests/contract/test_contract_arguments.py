from typing import Any

import pytest

POSITIONAL = [
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
    "account_info(1)",
    "terminal_info(x=1)",
    "symbol_info()",
    "copy_rates_from_pos('EURUSD', 1, 0)",
    "positions_get(nonsense=1)",
]
WRONG = [
    "symbol_info(None)",
    "symbol_info_tick(7)",
    "copy_rates_from_pos('EURUSD', 'H1', 0, 10)",
    "copy_rates_from_pos('EURUSD', 7, 0, 10)",
    "copy_rates_from_pos('EURUSD', 1, -1, 10)",
    "copy_rates_from_pos('EURUSD', 1, 0, -10)",
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
    "orders_get(ticket=-1)",
    "history_deals_get(float('nan'), 5)",
    "history_deals_get(9, 5)",
    "history_deals_get(1)",
    "history_orders_get(position='x')",
    "history_orders_total('a', 'b')",
]


@pytest.mark.parametrize("call", POSITIONAL)
def test_50_the_argument_parser_raises_type_errors(mt5: Any, call: str) -> None:
    with pytest.raises(TypeError):
        mt5.eval(f"mt5.{call}")


@pytest.mark.parametrize("call", WRONG)
def test_51_wrong_arguments_are_none_and_invalid_params(mt5: Any, call: str) -> None:
    assert mt5.eval(f"mt5.{call}") is None
    code, text = mt5.last_error()
    assert code == mt5.eval("mt5.RES_E_INVALID_PARAMS")
    assert isinstance(text, str)


@pytest.mark.parametrize(
    "call",
    [
        "login('5001001', password='x')",
        "login(2**63, password='x')",
        "login(-1, password='x')",
        "login(5001001, password=7)",
        "login(5001001, password='x', timeout=-1)",
        "login()",
        "login(float('nan'))",
        "initialize(7)",
    ],
)
def test_52_a_login_with_wrong_types_is_refused_and_changes_nothing(mt5: Any, call: str) -> None:
    before = mt5.account_info().login
    assert mt5.eval(f"mt5.{call}") is False
    assert mt5.last_error()[0] == mt5.eval("mt5.RES_E_INVALID_PARAMS")
    assert mt5.account_info().login == before


def test_53_dates_far_out_of_range_give_no_bars(mt5: Any) -> None:
    assert len(mt5.eval("mt5.copy_rates_from('EURUSD', 1, 0, 10)")) == 0
    assert len(mt5.eval("mt5.copy_rates_range('EURUSD', 16408, 0, 900000000)")) == 0
    assert len(mt5.eval("mt5.copy_rates_from('EURUSD', 16408, 2**63, 10)")) == 10
