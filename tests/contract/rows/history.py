"""150-179: deals and orders of the past."""

import math
import time
from datetime import UTC, datetime, timedelta

import pytest
from tests.contract.case import EVER, SUCCESS, Case
from tests.contract.catalogue import Need, family, row
from tests.contract.clients import Fields, StockClient
from tests.contract.clients import every as by_value
from tests.contract.trading import done, order_of, pending, request

LONG_AGO = datetime(2001, 1, 1, tzinfo=UTC)
KINDS = ("deals", "orders")


def month() -> tuple[int, int]:
    """From thirty days ago to yesterday, so that nothing new falls in."""
    now = int(time.time())
    return now - 30 * 86_400, now - 86_400


def moment(row: Fields) -> int:
    """When a deal was made, or an order completed."""
    return int(row["time_msc"] if "time_msc" in row else row["time_done_msc"])


def read(case: Case, kind: str, first: int, last: int, symbol: str = "") -> list[Fields]:
    """History as the client gives it."""
    fetch = case.client.deals if kind == "deals" else case.client.done_orders
    return fetch(first, last, symbol)


def closed_position(case: Case) -> int:
    """The identifier of a position that is closed for good."""
    closings = [row for row in case.client.deals(*EVER) if row["entry"] == 1]
    if not closings:
        case.lacks("closed position")
    identifier: int = closings[0]["position_id"]
    return identifier


@row(150, "deals sum to the balance, those of credit to the credit", core=True)
def sums(case: Case) -> None:
    credit = case.constant("DEAL_TYPE_CREDIT")
    for _ in range(50):
        before = case.client.account()
        deals = case.client.deals(*EVER)
        if case.client.account()["balance"] == before["balance"]:
            break

    def total(*, of_credit: bool) -> float:
        chosen = (deal for deal in deals if (deal["type"] == credit) is of_credit)
        return math.fsum(d["profit"] + d["swap"] + d["commission"] + d["fee"] for d in chosen)

    cent = 10.0 ** -before["currency_digits"]
    assert total(of_credit=False) == pytest.approx(before["balance"], abs=cent)
    assert total(of_credit=True) == pytest.approx(before["credit"], abs=cent)


@family(151, "history of {} by dates lies between them and ascends", KINDS, core=True)
def between(case: Case, kind: str) -> None:
    first, last = month()
    times = [moment(found) for found in read(case, kind, first, last)]
    assert times or case.lacks("history")
    assert times == sorted(times)
    assert first * 1000 <= times[0]
    assert times[-1] < (last + 1) * 1000


@family(153, "history of {} by dates holds both its ends", KINDS)
def inclusive(case: Case, kind: str) -> None:
    rows = read(case, kind, *month()) or case.lacks("history")
    second = moment(rows[0]) // 1000
    again = read(case, kind, second, second)
    assert rows[0]["ticket"] in [found["ticket"] for found in again]
    assert all(moment(found) // 1000 == second for found in again)


@family(155, "history of {} of one symbol is that of this symbol", KINDS)
def of_symbol(case: Case, kind: str) -> None:
    span = month()
    every = read(case, kind, *span)
    symbol = next((row["symbol"] for row in every if row["symbol"]), None) or case.lacks("trade")
    if isinstance(case.client, StockClient):
        # A group, because the client of these tests picks a symbol by itself.
        fetch = getattr(case.mt5, f"history_{kind}_get")
        found = by_value(case.mt5, fetch(*span, group=symbol))
    else:
        found = read(case, kind, *span, symbol)
    assert found == [row for row in every if row["symbol"] == symbol]


@family(157, "history of {} is counted by its total", KINDS, Need.MODULE)
def counted(case: Case, kind: str) -> None:
    first, last = month()
    start, end = (datetime.fromtimestamp(at, UTC) for at in (first, last))
    total = getattr(case.mt5, f"history_{kind}_total")(start, end)
    assert total == len(read(case, kind, first, last))
    assert case.mt5.last_error() == SUCCESS


@family(159, "history of {} by position", KINDS, Need.MODULE)
def by_position(case: Case, kind: str) -> None:
    identifier = closed_position(case)
    query = f"[r.position_id for r in mt5.history_{kind}_get(position={identifier})]"
    found = list(case.mt5.eval(query))
    assert len(found) >= 2
    assert set(found) == {identifier}


@family(161, "history of {} by the ticket of an order", KINDS, Need.MODULE)
def by_ticket(case: Case, kind: str) -> None:
    deal = next((d for d in case.client.deals(*EVER) if d["order"]), None) or case.lacks("deal")
    attribute = "order" if kind == "deals" else "ticket"
    query = f"[r.{attribute} for r in mt5.history_{kind}_get(ticket={deal['order']})]"
    assert set(case.mt5.eval(query)) == {deal["order"]}


@family(163, "history of {} by a group", KINDS, Need.MODULE)
def by_group(case: Case, kind: str) -> None:
    first, last = month()
    every = {row["symbol"] for row in read(case, kind, first, last)}
    call = f"mt5.history_{kind}_get({first}, {last}, group='*USD*,!EUR*')"
    dollars = set(case.mt5.eval(f"{{row.symbol for row in {call}}}"))
    assert dollars == {name for name in every if "USD" in name and not name.startswith("EUR")}


@family(165, "history of {} of nothing is an empty tuple and no error", KINDS, Need.MODULE)
def nothing(case: Case, kind: str) -> None:
    for query in ("position=1", "ticket=1", "10, 20"):
        assert case.mt5.eval(f"mt5.history_{kind}_get({query})") == ()
        assert case.mt5.last_error() == SUCCESS


@family(167, "history of {} without a question is refused", KINDS, Need.MODULE)
def no_question(case: Case, kind: str) -> None:
    case.refuses(f"history_{kind}_get()")


@row(169, "a closed position has deals in and out, and orders of both")
def whole_life(case: Case) -> None:
    identifier = closed_position(case)
    deals = [row for row in case.client.deals(*EVER) if row["position_id"] == identifier]
    orders = [row for row in case.client.done_orders(*EVER) if row["position_id"] == identifier]
    assert deals[0]["entry"] == case.constant("DEAL_ENTRY_IN")
    assert deals[-1]["entry"] == case.constant("DEAL_ENTRY_OUT")
    assert deals[0]["profit"] == 0
    assert {row["order"] for row in deals} == {row["ticket"] for row in orders}
    assert identifier in {row["ticket"] for row in orders}
    assert all(row["state"] == case.constant("ORDER_STATE_FILLED") for row in orders)


@row(170, "volume in is volume out and open volume, position by position")
def volumes(case: Case) -> None:
    net: dict[int, float] = {}
    for deal in case.client.deals(*EVER):
        if deal["position_id"]:
            sign = 1 if deal["type"] == case.constant("DEAL_TYPE_BUY") else -1
            before = net.get(deal["position_id"], 0.0)
            net[deal["position_id"]] = before + sign * deal["volume"]
    for position in case.client.positions():
        sign = 1 if position["type"] == case.constant("POSITION_TYPE_BUY") else -1
        assert net.pop(position["identifier"]) == pytest.approx(sign * position["volume"])
    assert list(net.values()) == pytest.approx([0.0] * len(net))


@row(171, "history through mt5linux takes datetimes", Need.MODULE)
def datetimes(case: Case) -> None:
    end = datetime.now(UTC) - timedelta(days=1)
    rows = case.mt5.history_deals_get(LONG_AGO, end)
    assert len(rows) == case.mt5.history_deals_total(LONG_AGO, end) > 0


@row(172, "an order is in the history at the second it was done, not placed", Need.TRADING)
def by_when_done(case: Case) -> None:
    order = next((o for o in case.client.done_orders(*EVER) if late(o)), None) or kept_waiting(case)
    for field, there in (("time_done", True), ("time_setup", False)):
        found = case.client.done_orders(order[field], order[field])
        assert (order["ticket"] in [row["ticket"] for row in found]) is there, field


def late(order: Fields) -> bool:
    """Whether it was done in another second than placed."""
    return bool(order["time_setup"] < order["time_done"])


def kept_waiting(case: Case) -> Fields:
    """A pending order that was removed more than a second after it was placed."""
    ticket = done(case, pending(case, "BUY_LIMIT"))["order"]
    placed = time.monotonic()
    case.eventually(lambda: time.monotonic() - placed > 1)
    done(case, request(case, "REMOVE", order=ticket))
    case.eventually(lambda: order_of(case, ticket) is None)
    return next(o for o in case.client.done_orders(*EVER) if o["ticket"] == ticket)
