"""What the desk refuses, and with which code."""

from math import inf, nan
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.terminal_sim.broker.trading import DAY_MS, NOW_MS, Counter, Trading

from terminal_sim.broker import codes, retcodes
from terminal_sim.broker.retcodes import TEXTS
from terminal_sim.broker.values import NOTHING, Terms, TradeRequest
from terminal_sim.catalogue import catalogue
from terminal_sim.market.instruments import INSTRUMENTS

BUY: dict[str, Any] = {"action": 1, "symbol": "EURUSD", "volume": 0.1, "type": 0}
LIMIT: dict[str, Any] = {"action": 5, "symbol": "EURUSD", "volume": 0.1, "type": 2, "price": 0.9}


def test_codes_are_those_of_the_module() -> None:
    constants = catalogue().constants
    ours = {name: value for name, value in vars(codes).items() if name.isupper() and name[0] != "_"}
    assert ours
    assert ours == {name: constants[name] for name in ours}
    named = {
        name: value
        for name, value in vars(retcodes).items()
        if name.isupper() and name not in {"TEXTS", "CHECKED"}
    }
    assert named == {name: constants[f"TRADE_RETCODE_{name}"] for name in named}
    every = {value for name, value in constants.items() if name.startswith("TRADE_RETCODE_")}
    assert every == TEXTS.keys() - {retcodes.CHECKED}


@pytest.mark.parametrize(
    ("fields", "retcode"),
    [
        ({"action": 0}, 10013),
        ({"action": 99}, 10013),
        ({"action": 10, "position": 1, "position_by": 2}, 10013),
        (BUY | {"symbol": "NOSUCH"}, 10013),
        (BUY | {"symbol": ""}, 10013),
        (BUY | {"type": 2}, 10013),
        (BUY | {"type": -1}, 10013),
        (LIMIT | {"type": 0}, 10013),
        (LIMIT | {"type": 6, "stoplimit": 0.9}, 10013),
        (LIMIT | {"type": 8}, 10013),
        (BUY | {"volume": nan}, 10014),
        (BUY | {"volume": inf}, 10014),
        (BUY | {"volume": 0.0}, 10014),
        (BUY | {"volume": -0.1}, 10014),
        (BUY | {"volume": 0.001}, 10014),
        (BUY | {"volume": 0.015}, 10014),
        (BUY | {"volume": 100.01}, 10014),
        (LIMIT | {"volume": 0.015}, 10014),
        (BUY | {"price": nan}, 10015),
        (BUY | {"price": -1.0}, 10015),
        (LIMIT | {"price": nan}, 10015),
        (LIMIT | {"price": 0.0}, 10015),
        (LIMIT | {"price": -1.0}, 10015),
        (LIMIT | {"price": 1e300}, 10015),
        (LIMIT | {"price": 2.0}, 10015),
        (LIMIT | {"type": 3, "price": 0.5}, 10015),
        (LIMIT | {"type": 4, "price": 0.5}, 10015),
        (LIMIT | {"type": 5, "price": 2.0}, 10015),
        (BUY | {"sl": nan}, 10016),
        (BUY | {"sl": -1.0}, 10016),
        (BUY | {"sl": 2.0}, 10016),
        (BUY | {"tp": 0.5}, 10016),
        (BUY | {"type": 1, "sl": 0.5}, 10016),
        (BUY | {"type": 1, "tp": 2.0}, 10016),
        (LIMIT | {"sl": 0.95}, 10016),
        (LIMIT | {"tp": 0.85}, 10016),
        (BUY | {"volume": 100.0}, 10019),
        (LIMIT | {"type_time": 2, "expiration": 0}, 10022),
        (LIMIT | {"type_time": 2, "expiration": NOW_MS // 1000}, 10022),
        (LIMIT | {"type_time": 3, "expiration": (NOW_MS - DAY_MS) // 1000}, 10022),
        (LIMIT | {"type_time": 2, "expiration": 2**62}, 10022),
        (LIMIT | {"type_time": 9}, 10022),
        (BUY | {"type_filling": 2}, 10030),
        (BUY | {"type_filling": 3}, 10030),
        (LIMIT | {"type_filling": 3}, 10030),
        ({"action": 7, "order": 12345, "price": 0.9}, 10035),
        ({"action": 8, "order": 12345}, 10035),
        ({"action": 6, "position": 12345, "sl": 0.9}, 10036),
        ({"action": 6, "symbol": "EURUSD", "sl": 0.9}, 10013),
        (BUY | {"type": 1, "position": 12345}, 10036),
    ],
)
def test_refused_by_order_send_and_order_check_alike(fields: dict[str, Any], retcode: int) -> None:
    trading = Trading()
    assert trading.send(**fields) == retcode
    assert trading.desk.check(trading.state, TradeRequest(**fields), NOW_MS).retcode == retcode
    assert trading.state.version == 0


@pytest.mark.parametrize(
    "fields",
    [
        BUY,
        BUY | {"type": 1},
        BUY | {"price": 0.0, "deviation": 0},
        BUY | {"price": 55.0, "type_filling": 1},
        BUY | {"sl": 0.9, "tp": 1.9},
        LIMIT,
        LIMIT | {"type_filling": 2, "sl": 0.85, "tp": 0.95},
        LIMIT | {"type": 3, "price": 2.0},
        LIMIT | {"type": 4, "price": 2.0},
        LIMIT | {"type": 5, "price": 0.5},
        LIMIT | {"type_time": 1},
        LIMIT | {"type_time": 2, "expiration": (NOW_MS + DAY_MS) // 1000},
        LIMIT | {"type_time": 3, "expiration": NOW_MS // 1000 + 7200},
    ],
)
def test_accepted_by_order_send_and_order_check_alike(fields: dict[str, Any]) -> None:
    trading = Trading()
    checked = trading.desk.check(trading.state, TradeRequest(**fields), NOW_MS)
    assert (checked.retcode, checked.comment) == (0, "Done")
    assert trading.send(**fields) == 10009
    after = trading.value()
    assert (checked.balance, checked.equity, checked.profit, checked.margin) == (
        after.balance,
        after.equity,
        after.floating,
        after.margin,
    )
    assert (checked.margin_free, checked.margin_level) == (after.margin_free, after.margin_level)


def test_a_check_that_lacks_money_shows_how_much() -> None:
    trading = Trading()
    checked = trading.desk.check(trading.state, TradeRequest(**BUY | {"volume": 100.0}), NOW_MS)
    assert (checked.retcode, checked.comment) == (10019, "No money")
    assert checked.margin_free < 0 < checked.margin


def test_an_investor_is_refused_everything() -> None:
    trading = Trading()
    assert trading.ask(TradeRequest(**BUY), investor=True) == 10017
    assert trading.ask(TradeRequest(**LIMIT), investor=True) == 10017
    check = trading.desk.check(trading.state, TradeRequest(**BUY), NOW_MS, investor=True)
    assert check.retcode == 10017


def test_the_weekend_of_the_servers_clock_is_closed_but_for_crypto() -> None:
    weekdays = Terms("Tests", "Tests Ltd", 7, "EET-US", trading_days="weekdays")
    # Friday 2026-11-20 22:00 UTC is Saturday 00:00 on the server's clock.
    saturday = NOW_MS // DAY_MS * DAY_MS + 2 * DAY_MS + 22 * 3_600_000
    for now_ms, retcode in ((saturday - 1, 10009), (saturday, 10018), (saturday + DAY_MS, 10018)):
        trading = Trading(terms=weekdays, now_ms=now_ms)
        assert trading.send(**BUY) == trading.send(**LIMIT) == retcode
        assert trading.market(1, "BTCUSD") == 10009
    assert Trading(terms=weekdays, now_ms=saturday + 2 * DAY_MS).send(**BUY) == 10009
    assert Trading(now_ms=saturday).send(**BUY) == 10009


def test_positions_are_closed_by_their_ticket_and_direction_only() -> None:
    trading = Trading()
    trading.market(1)
    (ticket,) = trading.state.positions
    assert trading.market(-1, volume=0.2, position=ticket) == 10038
    assert trading.market(1, position=ticket) == 10013
    assert trading.market(-1, "GBPUSD", position=ticket) == 10013
    assert trading.market(-1, "", position=ticket) == 10009
    assert trading.market(-1, position=ticket) == 10036


def test_changing_nothing_is_refused() -> None:
    trading = Trading()
    trading.market(1, sl=0.9)
    (ticket,) = trading.state.positions
    assert trading.send(action=6, position=ticket, sl=0.9) == 10025
    assert trading.send(action=6, position=ticket, sl=0.95, tp=1.9) == 10009
    assert trading.send(action=6, position=ticket, sl=1.9, tp=1.95) == 10016
    assert trading.send(action=6, position=ticket) == 10009
    assert (trading.state.positions[ticket].sl, trading.state.positions[ticket].tp) == (0, 0)
    trading.pending(codes.ORDER_TYPE_BUY_LIMIT, 0.9)
    (order,) = trading.state.orders
    assert trading.send(action=7, order=order, price=0.9) == 10025
    assert trading.send(action=7, order=order, price=0.91, sl=0.9) == 10009
    assert trading.send(action=7, order=order, price=2.0) == 10015
    assert trading.state.orders[order].price_open == 0.91
    assert trading.send(action=8, order=order) == 10009
    assert trading.done[-1].state == codes.ORDER_STATE_CANCELED
    assert trading.send(action=8, order=order) == 10035


def test_there_is_an_end_to_pending_orders_and_to_volume() -> None:
    trading = Trading()
    for number in range(200):
        kind = codes.ORDER_TYPE_BUY_LIMIT if number % 2 else codes.ORDER_TYPE_SELL_LIMIT
        assert trading.pending(kind, 0.9 if number % 2 else 2.0) == 10009
    assert trading.send(**LIMIT) == 10033
    trading = Trading(balance=1e9)
    for _ in range(10):
        assert trading.market(1, volume=100.0) == 10009
    assert trading.market(1, volume=0.01) == trading.send(**LIMIT) == 10034
    assert trading.market(-1, volume=100.0) == 10009
    for _ in range(9):
        assert trading.pending(codes.ORDER_TYPE_SELL_LIMIT, 2.0, volume=100.0) == 10009
    assert trading.market(-1, volume=0.01) == 10034
    assert trading.pending(codes.ORDER_TYPE_SELL_STOP, 0.5, volume=0.01) == 10034
    assert trading.pending(codes.ORDER_TYPE_SELL_STOP, 0.5, "GBPUSD") == 10009


NUMBERS = st.one_of(
    st.floats(), st.sampled_from([0.0, 0.01, 0.1, 1.0, 1.05, 150.0, -1.0, 1e308, 5e-324])
)
INTEGERS = st.one_of(st.integers(0, 12), st.integers(-(2**63), 2**64 - 1))
SYMBOLS = st.one_of(st.sampled_from([*INSTRUMENTS, "", "EURUSD", "NOSUCH"]), st.text(max_size=5))
REQUESTS = st.builds(
    TradeRequest,
    action=st.one_of(st.sampled_from([1, 5, 6, 7, 8]), INTEGERS),
    magic=INTEGERS,
    order=st.one_of(st.integers(999, 1006), INTEGERS),
    symbol=SYMBOLS,
    volume=NUMBERS,
    price=NUMBERS,
    stoplimit=NUMBERS,
    sl=NUMBERS,
    tp=NUMBERS,
    deviation=INTEGERS,
    type=st.one_of(st.integers(-1, 9), INTEGERS),
    type_filling=st.one_of(st.integers(-1, 4), INTEGERS),
    type_time=st.one_of(st.integers(-1, 4), INTEGERS),
    expiration=st.one_of(st.integers(NOW_MS // 1000 - 9, 2_000_000_000), INTEGERS),
    comment=st.text(max_size=40),
    position=st.one_of(st.integers(999, 1006), INTEGERS),
    position_by=INTEGERS,
)


@settings(max_examples=200)
@given(
    st.sampled_from(["hedging", "netting"]),
    st.lists(REQUESTS, min_size=1, max_size=5),
    st.booleans(),
)
def test_no_request_raises(mode: Any, requests: list[TradeRequest], investor: bool) -> None:
    trading = Trading(mode)
    trading.market(1)
    trading.market(-1, "USDJPY")
    trading.pending(codes.ORDER_TYPE_BUY_LIMIT, 0.9)
    for request in requests:
        outcome = trading.desk.execute(
            trading.state, request, NOW_MS, trading.tickets, investor=investor
        )
        checked = trading.desk.check(trading.state, request, NOW_MS, investor=investor)
        assert outcome.result.comment == TEXTS[outcome.result.retcode]
        assert checked.comment == TEXTS[checked.retcode]
        assert (outcome.result.retcode == 10009) == (checked.retcode == 0)
        assert (outcome.result.retcode == 10009) == (outcome.change != NOTHING)
        trading.apply(outcome.change)


def test_a_refusal_takes_no_ticket_and_leaves_the_state() -> None:
    trading = Trading()
    before = dict(trading.state.positions), dict(trading.state.orders), trading.state.balance
    tickets = Counter(5)
    for fields in (BUY | {"volume": 100.0}, LIMIT | {"price": 2.0}, BUY | {"symbol": "?"}):
        outcome = trading.desk.execute(trading.state, TradeRequest(**fields), NOW_MS, tickets)
        assert outcome.change == NOTHING
    trading.desk.check(trading.state, TradeRequest(**BUY), NOW_MS)
    assert tickets.next() == 5
    assert before == (trading.state.positions, trading.state.orders, trading.state.balance)
