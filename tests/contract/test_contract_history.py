from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

LONG_AGO = datetime(2001, 1, 1, tzinfo=UTC)


def later() -> datetime:
    return datetime.now(UTC) + timedelta(days=2)


def test_20_deals_sum_to_the_balance(mt5: Any) -> None:
    for _ in range(20):
        balance = mt5.account_info().balance
        total = mt5.eval(
            "sum(d.profit + d.commission + d.swap + d.fee"
            " for d in mt5.history_deals_get(0, 2**32) if d.type != mt5.DEAL_TYPE_CREDIT)"
        )
        if mt5.account_info().balance == balance:
            break
    assert total == pytest.approx(balance, abs=0.01)


def test_21_deals_by_dates_ascend_and_are_counted(mt5: Any) -> None:
    start, end = datetime.now(UTC) - timedelta(days=30), datetime.now(UTC) - timedelta(days=1)
    first, last = start.timestamp(), end.timestamp()
    rows = mt5.eval(f"[d.time for d in mt5.history_deals_get({first}, {last})]")
    times = list(rows)
    assert times == sorted(times)
    assert all(int(first) <= time <= int(last) for time in times)
    assert mt5.history_deals_total(start, end) == len(times)


def test_22_each_closed_position_has_two_orders_and_two_deals(mt5: Any) -> None:
    closing = [row for row in mt5.history_deals_get(LONG_AGO, later(), group="*USD") if row.entry]
    if not closing:
        pytest.skip("the account has no closed position")
    identifier = closing[0].position_id
    deals = mt5.history_deals_get(position=identifier)
    orders = mt5.history_orders_get(position=identifier)
    assert [row.entry for row in deals] == [0, 1]
    assert {row.order for row in deals} == {row.ticket for row in orders}
    assert [row.type for row in deals] in ([0, 1], [1, 0])
    assert deals[0].profit == 0
    assert orders[0].ticket == identifier
    assert all(row.state == mt5.ORDER_STATE_FILLED for row in orders)


def test_23_history_is_found_by_the_ticket_of_an_order(mt5: Any) -> None:
    deal = next((d for d in mt5.history_deals_get(LONG_AGO, later()) if d.order), None)
    if deal is None:
        pytest.skip("the account has no deal with an order")
    order = deal.order
    assert [row.order for row in mt5.history_deals_get(ticket=order)] == [order]
    assert [row.ticket for row in mt5.history_orders_get(ticket=order)] == [order]


def test_24_history_of_nothing_is_an_empty_tuple(mt5: Any) -> None:
    assert mt5.history_deals_get(position=1) == ()
    assert mt5.history_orders_get(ticket=1) == ()
    assert mt5.history_deals_get(10, 20) == ()
    assert mt5.last_error() == (1, "Success")


def test_25_history_without_a_question_is_refused(mt5: Any) -> None:
    assert mt5.history_deals_get() is None
    assert mt5.last_error()[0] == mt5.eval("mt5.RES_E_INVALID_PARAMS")


def test_26_completed_orders_are_counted(mt5: Any) -> None:
    end = datetime.now(UTC) - timedelta(days=1)
    total = mt5.history_orders_total(LONG_AGO, end)
    assert total == mt5.eval(f"len(mt5.history_orders_get(0, {end.timestamp()}))")
