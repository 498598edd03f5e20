"""Numbers, rows and points: everything that is shown, without a browser."""

import datetime as dt
import itertools
from collections.abc import Mapping
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.integration.console.console_fakes import account_info, order, position

from console.account_model import AccountModel, Frame, Status
from console.api_client import AccountDetail, Meta, Problem, Reading
from console.equity_chart import LEAST_STEP_MS, QUIET_STEP_MS, EquityTrace
from console.figures import MINUS, NOTHING, PriceDigits, age, money, volume
from console.stream_client import Link, Phase
from console.table_patch import table_patch
from console.view import Cell, Table, Tone, figures_of, state_of, view_of
from console.watch import Known
from mt5kit.domain.accounts import AccountInfo
from mt5kit.domain.trades import Order, Position

NOW = dt.datetime(2026, 5, 4, 12, 0, 2, tzinfo=dt.UTC)
LIVE = Link(Phase.LIVE, None, "ws-1")
LOST = Link(Phase.RECONNECTING, Problem("The stream was interrupted.", "WS_1006"), "ws-1")


def streamed(*positions: dict[str, Any], ts: str = "2026-05-04T12:00:00.000Z") -> AccountModel:
    data = {"account": account_info(5000001, 1000.0), "positions": positions, "orders": [order(9)]}
    raw = msgspec.Raw(msgspec.json.encode(data))
    return AccountModel().apply(Frame("snapshot", "demo-1", 7, 3, ts, raw))


def read(balance: float, as_of: str) -> Reading:
    info = msgspec.convert(account_info(5000001, balance), AccountInfo)
    return Reading(info, (), (), Meta("mt5-api-1", "api-1", "cache", as_of))


def detail(state: str, error: Problem | None = None) -> AccountDetail:
    return AccountDetail("demo-1", 5000001, "Fake-Demo", state, "", error)


@pytest.mark.parametrize(
    ("amount", "digits", "signed", "text"),
    [
        (1234567.891, 2, False, "1,234,567.89"),
        (-0.5, 2, True, f"{MINUS}0.50"),
        (0.5, 2, True, "+0.50"),
        (-0.001, 2, True, "0.00"),
        (1500000, 0, False, "1,500,000"),
        (0.00012345, 8, False, "0.00012345"),
    ],
)
def test_money(amount: float, digits: int, signed: bool, text: str) -> None:
    assert money(amount, digits, signed=signed) == text


def test_volumes_keep_two_decimals_or_their_own() -> None:
    assert [volume(lots) for lots in (1.0, 0.1, 0.005, 12.25)] == ["1.00", "0.10", "0.005", "12.25"]


def test_ages() -> None:
    seconds = (-1, 0.42, 12.9, 61, 7300, 300_000)
    assert [age(s) for s in seconds] == ["0.0 s", "0.4 s", "12 s", "1 min", "2 h", "3 d"]


def test_a_price_keeps_its_symbols_decimals_when_it_ends_in_zeros() -> None:
    digits = PriceDigits()
    digits.learn("EURUSD", 1.08345, 1.0835)
    assert digits.show("EURUSD", 1.0835) == "1.08350"
    assert digits.show("EURUSD", 0.0) == NOTHING


def test_the_page_of_a_streamed_account() -> None:
    model = streamed(position(101, profit=12.5), position(102, profit=-20.0))
    view = view_of(Known(model, LIVE), NOW, PriceDigits())
    assert view.cells["balance"].text == "1,000.00"
    assert view.cells["margin-level"].text == "200.00 %"
    assert view.cells["line"].text == "7:3"
    assert view.cells["changed"].text == "2.0 s ago"
    assert view.positions.rows["101"]["profit"] == Cell("+12.50", Tone.UP)
    assert view.positions.rows["101"]["side"].text == "Sell"
    assert view.positions.totals["profit"] == Cell(f"{MINUS}7.50", Tone.DOWN)
    assert view.positions.totals["symbol"].text == "2 positions"
    assert view.orders.rows["9"]["kind"].text == "Buy limit"
    assert view.problem is None


def test_without_margin_there_is_no_margin_level() -> None:
    model = streamed()
    assert model.account is not None
    free = msgspec.structs.replace(model.account, margin=0.0, margin_level=0.0)
    known = Known(msgspec.structs.replace(model, account=free), LIVE)
    assert view_of(known, NOW, PriceDigits()).cells["margin-level"].text == NOTHING


def test_before_the_first_figures_there_are_dashes() -> None:
    view = view_of(Known(AccountModel(), Link()), NOW, PriceDigits())
    assert view.cells["equity"].text == NOTHING
    assert view.cells["state"].text == "Loading"
    assert view.equity is None


def test_the_newer_of_stream_and_rest_is_shown_while_the_stream_is_away() -> None:
    model = streamed()
    older, newer = read(1.0, "2026-05-04T11:59:59.000Z"), read(2.0, "2026-05-04T12:00:01.000Z")

    def balance(link: Link, reading: Reading) -> float:
        figures = figures_of(Known(model, link, reading=reading))
        assert figures is not None
        return figures.account.balance

    assert balance(LIVE, newer) == 1000.0
    assert balance(LOST, newer) == 2.0
    assert balance(LOST, older) == 1000.0


def test_the_streams_word_on_the_state_counts_while_it_is_live() -> None:
    model = msgspec.structs.replace(streamed(), status=Status("broker_disconnected", "gone"))
    known = Known(model, LIVE, detail("connected"))
    assert state_of(known) == "broker_disconnected"
    assert view_of(known, NOW, PriceDigits()).problem == Problem("gone", "BROKER_DISCONNECTED")
    assert state_of(msgspec.structs.replace(known, link=LOST)) == "connected"


def test_a_replica_that_hears_nothing_is_not_taken_for_the_account() -> None:
    model = msgspec.structs.replace(streamed(), status=Status("degraded", "Redis is away"))
    deaf = Link(Phase.DEGRADED, Problem("Redis is away", "STREAM_DEGRADED"), "ws-1")
    known = Known(model, deaf, detail("connected"), read(2.0, "2026-05-04T12:00:01.000Z"))
    view = view_of(known, NOW, PriceDigits())
    assert view.cells["stream"] == Cell("Degraded", Tone.WAIT)
    assert view.cells["state"].text == "Connected"
    assert view.cells["balance"].text == "2.00"
    assert view.problem == Problem("Redis is away", "STREAM_DEGRADED")
    assert state_of(Known(model, LOST)) is None


def test_a_refused_login_is_told_in_the_brokers_words() -> None:
    refused = Problem("The broker refused: Invalid account", "MT5_LOGIN_FAILED")
    view = view_of(Known(AccountModel(), LOST, detail("login_failed", refused)), NOW, PriceDigits())
    assert view.problem == refused
    assert view.cells["state"] == Cell("Login failed", Tone.BAD)


cells = st.builds(Cell, st.text(max_size=3), st.sampled_from(Tone))
rows = st.fixed_dictionaries({"symbol": cells, "profit": cells})
tables = st.builds(Table, st.dictionaries(st.sampled_from("abcdef"), rows), st.just({}) | rows)


def patched(before: Table, patch: Mapping[str, Any] | None) -> Table:
    """What the browser's table does with a patch."""
    patch = patch or {}

    def cells_of(change: Mapping[str, Any]) -> dict[str, Cell]:
        return {column: Cell(text, Tone(tone)) for column, (text, tone) in change.items()}

    shown = {ticket: dict(row) for ticket, row in before.rows.items()}
    for ticket, change in patch.get("rows", {}).items():
        shown.setdefault(ticket, {}).update(cells_of(change))
    order_shown = patch.get("order", list(shown))
    totals = cells_of(patch["totals"]) if "totals" in patch else before.totals
    return Table({ticket: shown[ticket] for ticket in order_shown}, totals)


@settings(max_examples=100)
@given(tables, tables)
def test_a_patch_brings_one_table_to_the_other(before: Table, after: Table) -> None:
    there = patched(before, table_patch(before, after))
    assert there == after
    assert list(there.rows) == list(after.rows)
    assert table_patch(after, after) is None


def test_a_tick_sends_only_its_own_cells() -> None:
    before = view_of(Known(streamed(position(1), position(2)), LIVE), NOW, PriceDigits()).positions
    ticked = streamed(position(1), position(2, profit=5.0))
    after = view_of(Known(ticked, LIVE), NOW, PriceDigits()).positions
    patch = table_patch(before, after)
    assert patch is not None
    assert patch.keys() == {"rows", "totals"}
    assert patch["rows"] == {"2": {"current": ["1.08355", "plain"], "profit": ["+5.00", "up"]}}


@settings(max_examples=100)
@given(st.lists(st.tuples(st.integers(0, 3000), st.floats(0, 10)), max_size=50))
def test_points_always_go_forward_and_are_spaced(steps: list[tuple[int, float]]) -> None:
    trace, now, drawn = EquityTrace(), 0, []
    for step, equity in steps:
        now += step
        point = trace.offer(now, equity, now)
        if point is not None:
            drawn.append(point[0])
    assert all(after - before >= LEAST_STEP_MS for before, after in itertools.pairwise(drawn))


def test_a_quiet_line_moves_on() -> None:
    trace = EquityTrace()
    assert trace.offer(0, 5.0, 0) == (0, 5.0)
    assert trace.offer(0, 5.0, QUIET_STEP_MS - 1) is None
    assert trace.offer(0, 5.0, QUIET_STEP_MS) == (QUIET_STEP_MS, 5.0)


def test_orders_and_positions_decode_from_the_wire() -> None:
    assert msgspec.convert(position(1), Position).ticket == 1
    assert msgspec.convert(order(1), Order).ticket == 1
