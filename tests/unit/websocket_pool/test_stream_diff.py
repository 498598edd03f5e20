import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mt5kit.domain.accounts import AccountIdentity, AccountState
from mt5kit.domain.trades import Position
from mt5kit.testing.fake_terminal import make_account, make_order, make_position, make_snapshot
from websocket_pool.diff import (
    ORDER_TERMS,
    POSITION_TERMS,
    Changes,
    Status,
    View,
    diff_account,
    diff_rows,
    status_of,
)
from websocket_pool.messages import Kind

ME = AccountIdentity(7, "Demo")


def test_rows_that_came_went_or_were_modified_are_told_apart() -> None:
    gone, moved, kept = (make_position(ticket) for ticket in (1, 2, 3))
    modified = msgspec.structs.replace(moved, sl=1.05)
    dearer = msgspec.structs.replace(kept, profit=9.0, price_current=1.2)
    new = make_position(4)
    rows = diff_rows((gone, moved, kept), (new, dearer, modified), POSITION_TERMS)
    assert (rows.added, rows.removed, rows.modified) == ((new,), (gone,), (modified,))


rows = st.lists(
    st.builds(
        lambda ticket, profit, sl: msgspec.structs.replace(make_position(ticket, profit), sl=sl),
        st.integers(1, 5),
        st.sampled_from([0.0, 1.0]),
        st.sampled_from([0.0, 1.0]),
    ),
    unique_by=lambda row: row.ticket,
).map(tuple)


@settings(max_examples=200)
@given(rows, rows)
def test_rows_of_any_two_looks_are_told_apart(
    before: tuple[Position, ...], after: tuple[Position, ...]
) -> None:
    had, has = {row.ticket: row for row in before}, {row.ticket: row for row in after}
    found = diff_rows(before, after, POSITION_TERMS)
    assert found.added == tuple(row for row in after if row.ticket not in had)
    assert found.removed == tuple(row for row in before if row.ticket not in has)
    both = [row for row in after if row.ticket in had]
    assert found.modified == tuple(row for row in both if row.sl != had[row.ticket].sl)


@pytest.mark.parametrize("term", POSITION_TERMS)
def test_each_term_of_a_position_counts(term: str) -> None:
    before = make_position(1)
    value = "other" if term == "comment" else 0.7
    after = msgspec.structs.replace(before, **{term: value})
    assert diff_rows((before,), (after,), POSITION_TERMS).modified == (after,)


def test_a_price_alone_modifies_no_order() -> None:
    before = make_order(1)
    after = msgspec.structs.replace(before, price_current=1.2)
    assert not diff_rows((before,), (after,), ORDER_TERMS)


def test_only_changed_fields_of_the_account_are_told() -> None:
    before = make_account(ME)
    after = msgspec.structs.replace(before, equity=1001.5, profit=1.5)
    assert diff_account(before, after) == {"equity": 1001.5, "profit": 1.5}
    assert diff_account(after, after) == {}


def test_structural_changes_are_known_from_those_of_the_market() -> None:
    told = View(Status(AccountState.CONNECTED)).looked(make_snapshot(ME, make_position(1)))
    market = told.looked(make_snapshot(ME, make_position(1, profit=3.0)))
    assert Changes.between(told, told).dirty == {}
    assert Changes.between(told, market).dirty == {Kind.POSITIONS: False}
    opened = told.looked(make_snapshot(ME, make_position(1), make_position(2)))
    assert Changes.between(told, opened).dirty == {Kind.POSITIONS: True}
    lost = msgspec.structs.replace(told, status=Status(AccountState.TERMINAL_UNAVAILABLE, "x"))
    assert Changes.between(told, lost).dirty == {Kind.STATUS: True}


def test_a_terminal_without_its_broker_says_so() -> None:
    look = make_snapshot(ME)
    assert status_of(look).state is AccountState.CONNECTED
    offline = msgspec.structs.replace(
        look, terminal=msgspec.structs.replace(look.terminal, connected=False)
    )
    assert status_of(offline).state is AccountState.BROKER_DISCONNECTED


def test_orders_are_told_whole_with_what_happened() -> None:
    status = Status(AccountState.CONNECTED)
    told = View(status, make_account(ME), orders=(make_order(1), make_order(2)))
    newest = View(status, make_account(ME), orders=(make_order(2, price=1.5), make_order(3)))
    data = Changes.between(told, newest).data(Kind.ORDERS)
    assert data == {
        "orders": newest.orders,
        "placed": (make_order(3),),
        "removed": (make_order(1),),
        "modified": (make_order(2, price=1.5),),
    }


def test_what_does_not_differ_is_told_whole_and_without_events() -> None:
    told = View(Status(AccountState.CONNECTED)).looked(make_snapshot(ME, make_position(1)))
    market = told.looked(make_snapshot(ME, make_position(1, profit=3.0)))
    nothing: dict[str, object] = {"opened": (), "closed": (), "modified": ()}
    for newest in (told, market):
        data = Changes.between(told, newest).data(Kind.POSITIONS)
        assert data == {"positions": newest.positions} | nothing
