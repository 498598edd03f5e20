"""120-149: what the account holds."""

import pytest
from tests.contract.case import SUCCESS, Case
from tests.contract.catalogue import Need, family, row


@row(120, "account_info() is the account that logged in", core=True)
def account(case: Case) -> None:
    info = case.client.account()
    assert (info["login"], info["server"]) == (case.target.home.login, case.target.home.server)
    assert info["trade_allowed"] is True


@row(121, "equity is balance, credit and floating profit", core=True)
def equity(case: Case) -> None:
    account, positions = case.steady()
    floating = sum(position["profit"] + position["swap"] for position in positions)
    cent = 10.0 ** -account["currency_digits"]
    assert account["profit"] == pytest.approx(floating, abs=cent)
    total = account["balance"] + account["credit"] + account["profit"]
    assert account["equity"] == pytest.approx(total, abs=cent)


@row(122, "free margin is equity less margin, the level is their ratio", core=True)
def margin(case: Case) -> None:
    account, _positions = case.steady()
    free = account["equity"] - account["margin"]
    assert account["margin_free"] == pytest.approx(free, abs=10.0 ** -account["currency_digits"])
    level = account["equity"] / account["margin"] * 100 if account["margin"] else 0.0
    assert account["margin_level"] == pytest.approx(level, rel=1e-6)


@row(123, "a position's profit has the sign of its price's way")
def profit(case: Case) -> None:
    for position in case.client.positions() or case.lacks("position"):
        sign = 1 if position["type"] == case.constant("POSITION_TYPE_BUY") else -1
        way = (position["price_current"] - position["price_open"]) * sign
        assert position["profit"] * way >= 0


@row(124, "positions have times in seconds and milliseconds that agree")
def times(case: Case) -> None:
    for position in case.client.positions() or case.lacks("position"):
        assert position["time"] == position["time_msc"] // 1000
        assert position["time_update"] == position["time_update_msc"] // 1000
        assert position["time_update_msc"] >= position["time_msc"] > 0


@row(125, "pending orders are placed and not filled")
def pending(case: Case) -> None:
    for order in case.client.orders() or case.lacks("pending order"):
        assert order["state"] == case.constant("ORDER_STATE_PLACED")
        assert order["volume_current"] == order["volume_initial"] > 0
        assert order["time_setup_msc"] > 0
        assert order["time_done_msc"] == 0
        assert order["price_current"] > 0


@row(126, "positions_total() and orders_total() count", Need.MODULE)
def totals(case: Case) -> None:
    assert case.mt5.positions_total() == len(case.client.positions())
    assert case.mt5.orders_total() == len(case.client.orders())
    assert case.mt5.last_error() == SUCCESS


GETTERS = ("positions_get", "orders_get")


@family(127, "{} finds by symbol", GETTERS, Need.MODULE)
def by_symbol(case: Case, call: str) -> None:
    symbol, _ticket = first(case, call)
    found = case.mt5.eval(f"[r.symbol for r in mt5.{call}(symbol={symbol!r})]")
    every = case.mt5.eval(f"[r.symbol for r in mt5.{call}()]")
    assert list(found) == [other for other in every if other == symbol]


@family(129, "{} finds by ticket", GETTERS, Need.MODULE)
def by_ticket(case: Case, call: str) -> None:
    _symbol, ticket = first(case, call)
    assert list(case.mt5.eval(f"[r.ticket for r in mt5.{call}(ticket={ticket})]")) == [ticket]


@family(131, "{} finds by a group with stars and exclusions", GETTERS, Need.MODULE)
def by_group(case: Case, call: str) -> None:
    symbol, ticket = first(case, call)

    def found(group: str) -> list[int]:
        return list(case.mt5.eval(f"[r.ticket for r in mt5.{call}(group={group!r})]"))

    assert ticket in found(symbol)
    assert ticket in found(f"*{symbol[1:]}")
    assert ticket in found(f"{symbol[:3]}*")
    assert ticket not in found(f"*,!{symbol}")
    assert ticket not in found("NOSUCH*")


@family(133, "{} of nothing is an empty tuple and no error", GETTERS, Need.MODULE)
def nothing(case: Case, call: str) -> None:
    for query in ("symbol='NOSUCH'", "ticket=1", "group='NOSUCH*'"):
        assert case.mt5.eval(f"mt5.{call}({query})") == ()
        assert case.mt5.last_error() == SUCCESS


def first(case: Case, call: str) -> tuple[str, int]:
    """Symbol and ticket of the first row."""
    found = case.mt5.eval(f"[(r.symbol, r.ticket) for r in mt5.{call}()][:1]")
    for symbol, ticket in found:
        return symbol, ticket
    return case.lacks(call)
