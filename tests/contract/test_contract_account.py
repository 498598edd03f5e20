import json
import pickle
from importlib.resources import files
from typing import Any

import pytest

API = json.loads(files("terminal_sim").joinpath("mt5_api.json").read_text())
STRUCTS = API["structs"]


def steady(mt5: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Read account and positions with no tick in between."""
    for _ in range(200):
        account = dict(mt5.account_info()._asdict())
        positions = [dict(row._asdict()) for row in mt5.positions_get()]
        if dict(mt5.account_info()._asdict()) == account:
            return account, positions
    raise AssertionError("the market never held still")


def test_01_account_info_has_every_field_in_order(mt5: Any) -> None:
    assert list(mt5.account_info()._asdict()) == STRUCTS["AccountInfo"]


def test_02_account_info_is_the_account_that_logged_in(mt5: Any, target: Any) -> None:
    info = mt5.account_info()
    assert (info.login, info.server) == (target.login, target.server)
    assert mt5.last_error() == (1, "Success")


def test_03_equity_is_balance_credit_and_floating_profit(mt5: Any) -> None:
    account, positions = steady(mt5)
    floating = sum(row["profit"] + row["swap"] for row in positions)
    assert account["equity"] == pytest.approx(account["balance"] + account["credit"] + floating)
    assert account["profit"] == pytest.approx(floating)
    assert account["margin_free"] == pytest.approx(account["equity"] - account["margin"])
    if account["margin"]:
        level = account["equity"] / account["margin"] * 100
        assert account["margin_level"] == pytest.approx(level)


def test_04_terminal_info_says_connected(mt5: Any) -> None:
    info = mt5.terminal_info()
    assert list(info._asdict()) == STRUCTS["TerminalInfo"]
    assert info.connected is True


def test_05_version_is_three_values(mt5: Any) -> None:
    version = mt5.version()
    assert [type(part) for part in version] == [int, int, str]


def test_06_positions_have_every_field_in_order(mt5: Any) -> None:
    rows = mt5.positions_get()
    assert isinstance(rows, tuple)
    assert all(list(row._asdict()) == STRUCTS["TradePosition"] for row in rows)
    assert mt5.positions_total() == len(rows)


def test_07_positions_are_found_by_symbol_group_and_ticket(mt5: Any) -> None:
    rows = [row for row in mt5.positions_get() if row.magic != 1]
    if not rows:
        pytest.skip("the account holds no position")
    first = rows[0]
    symbol, ticket = first.symbol, first.ticket
    assert all(row.symbol == symbol for row in mt5.positions_get(symbol=symbol))
    assert [row.ticket for row in mt5.positions_get(ticket=ticket)] == [ticket]
    assert ticket in [row.ticket for row in mt5.positions_get(group=f"*{symbol[1:]}")]
    assert ticket not in [row.ticket for row in mt5.positions_get(group=f"*,!{symbol}")]


def test_08_nothing_found_is_an_empty_tuple_and_no_error(mt5: Any) -> None:
    assert mt5.positions_get(symbol="NOSUCH") == ()
    assert mt5.positions_get(ticket=1) == ()
    assert mt5.orders_get(ticket=1) == ()
    assert mt5.last_error() == (1, "Success")


def test_09_orders_have_every_field_in_order(mt5: Any) -> None:
    rows = mt5.orders_get()
    assert all(list(row._asdict()) == STRUCTS["TradeOrder"] for row in rows)
    assert mt5.orders_total() == len(rows)
    for row in rows:
        assert [found.ticket for found in mt5.orders_get(ticket=row.ticket)] == [row.ticket]


def test_10_structs_are_tuples_of_the_builtins_without_fields(mt5: Any) -> None:
    assert mt5.eval("isinstance(mt5.account_info(), tuple)")
    assert mt5.eval("type(mt5.account_info()).__module__") == "builtins"
    assert not mt5.eval("hasattr(mt5.account_info(), '_fields')")
    assert mt5.eval("mt5.account_info()[0] == mt5.account_info().login")
    assert repr(mt5.account_info()).startswith("AccountInfo(login=")


def test_11_structs_cannot_be_pickled(mt5: Any) -> None:
    with pytest.raises((TypeError, pickle.PicklingError)):
        mt5.eval("__import__('pickle').dumps(mt5.account_info())")


def test_12_every_constant_has_its_value(mt5: Any) -> None:
    held = mt5.eval("{k: v for k, v in vars(mt5).items() if type(v) is int}")
    known = {name: held.get(name) for name in API["constants"]}
    missing = {name for name, value in known.items() if value != API["constants"][name]}
    assert missing <= set(API["new_since_5_0_36"])
