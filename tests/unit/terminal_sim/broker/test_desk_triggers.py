"""Stops and pending orders meet exactly the tick that reaches them."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from tests.unit.terminal_sim.broker.trading import DAY_MS, NOW_MS, Trading

from terminal_sim.broker import codes
from terminal_sim.broker.days import weekday
from terminal_sim.broker.orders import next_expiry
from terminal_sim.broker.triggers import Trigger, next_trigger
from terminal_sim.broker.values import Terms

SYMBOLS = ("EURUSD", "USDJPY", "BTCUSD")
HOUR_MS = 3_600_000
# Of a price, as shares of it: reached within seconds, hours or never.
AWAY = st.sampled_from([1e-6, 3e-5, 1e-4, 5e-4, 2e-3, 0.05])


def prepared(mode: Any, steps: list[tuple[str, int, float, float]], **more: Any) -> Trading:
    """Place positions and orders at distances from the market."""
    trading = Trading(mode, balance=1e9, **more)
    for symbol, kind, near, far in steps:
        quote = trading.quote(symbol)
        below, above = round(quote.bid * (1 - near), 5), round(quote.ask * (1 + far), 5)
        if kind < codes.ORDER_TYPE_BUY_LIMIT:
            stops = (below, above) if kind == codes.ORDER_TYPE_BUY else (above, below)
            sign = 1 if kind == codes.ORDER_TYPE_BUY else -1
            trading.market(sign, symbol, sl=stops[0], tp=stops[1])
        else:
            under = kind in {codes.ORDER_TYPE_BUY_LIMIT, codes.ORDER_TYPE_SELL_STOP}
            trading.pending(kind, below if under else above, symbol)
    return trading


STEPS = st.lists(
    st.tuples(st.sampled_from(SYMBOLS), st.integers(0, 5), AWAY, AWAY), min_size=1, max_size=5
)


def slow_search(trading: Trading, since_ms: int, until_ms: int) -> tuple[int, int, str] | None:
    """Try every tick of every item: the rules as MetaTrader's help writes them."""
    hits = []
    for symbol in SYMBOLS:
        ticks = trading.tape.market.ticks(symbol, since_ms + 1, until_ms + 1)
        for at_ms, bid, ask in ticks.tolist():
            for position in trading.state.positions.values():
                if position.symbol != symbol:
                    continue
                price = bid if position.sign > 0 else ask
                if position.sl and (price - position.sl) * position.sign <= 0:
                    hits.append((at_ms, position.ticket, "sl"))
                elif position.tp and (price - position.tp) * position.sign >= 0:
                    hits.append((at_ms, position.ticket, "tp"))
            for order in trading.state.orders.values():
                reached = {
                    codes.ORDER_TYPE_BUY_LIMIT: ask <= order.price_open,
                    codes.ORDER_TYPE_SELL_LIMIT: bid >= order.price_open,
                    codes.ORDER_TYPE_BUY_STOP: ask >= order.price_open,
                    codes.ORDER_TYPE_SELL_STOP: bid <= order.price_open,
                }
                if order.symbol == symbol and reached[order.type]:
                    hits.append((at_ms, order.ticket, "order"))
    return min(hits, default=None, key=lambda hit: hit[:2])


def told(trigger: Trigger | None) -> tuple[int, int, str] | None:
    return (trigger.at_ms, trigger.ticket, trigger.kind) if trigger else None


@settings(max_examples=40)
@given(STEPS, st.integers(1, 15 * 60_000))
def test_the_search_agrees_with_trying_every_tick(steps: Any, length_ms: int) -> None:
    trading = prepared("hedging", steps)
    until = NOW_MS + length_ms
    expected = slow_search(trading, NOW_MS, until)
    assert told(trading.desk.next_trigger(trading.state, NOW_MS, until)) == expected
    assert told(next_trigger(trading.state, trading.tape.market, NOW_MS, until)) == expected


@settings(max_examples=12)
@given(st.sampled_from(["hedging", "netting"]), STEPS)
def test_small_steps_and_one_long_one_come_to_the_same(mode: Any, steps: Any) -> None:
    one, many = prepared(mode, steps), prepared(mode, steps)
    until = NOW_MS + 4 * 60_000
    one.advance(until)
    for at_ms in range(NOW_MS, until + 1, 97):
        many.advance(at_ms)
    many.advance(until)
    assert one.deals == many.deals
    assert one.done == many.done
    assert one.state.positions == many.state.positions
    assert one.state.orders == many.state.orders


def test_a_search_over_days_finds_the_minute() -> None:
    trading = prepared("hedging", [("EURUSD", 0, 0.006, 0.006), ("BTCUSD", 2, 0.01, 0.0)])
    until = NOW_MS + 20 * DAY_MS
    found = trading.desk.next_trigger(trading.state, NOW_MS, until)
    assert found is not None
    assert found.at_ms > NOW_MS + DAY_MS // 24
    edge = trading.desk.next_trigger
    assert edge(trading.state, NOW_MS, found.at_ms - 1) is None
    assert edge(trading.state, NOW_MS, found.at_ms) == found
    assert edge(trading.state, found.at_ms - 1, until) == found
    quote = trading.tape.at(found.symbol, found.at_ms)
    assert (quote.time_msc, quote.bid, quote.ask) == (found.at_ms, found.bid, found.ask)


@pytest.mark.parametrize(("kind", "sl"), [("sl", True), ("tp", False)])
@pytest.mark.parametrize("sign", [1, -1])
def test_stops_close_at_the_ticks_price_and_say_so(kind: str, sl: bool, sign: int) -> None:
    trading = Trading()
    quote = trading.quote("EURUSD")
    down = sl == (sign > 0)
    level = round(quote.bid - 0.0003, 5) if down else round(quote.ask + 0.0003, 5)
    stops: dict[str, Any] = {kind: level}
    trading.market(sign, magic=5, **stops)
    trading.advance(NOW_MS + DAY_MS)
    assert not trading.state.positions
    deal, order = trading.deals[-1], trading.done[-1]
    reason = codes.DEAL_REASON_SL if sl else codes.DEAL_REASON_TP
    assert deal.reason == order.reason == reason
    assert deal.comment == order.comment == f"[{kind} {level:.5f}]"
    assert (deal.entry, deal.magic, deal.type) == (codes.DEAL_ENTRY_OUT, 5, sign > 0)
    at = trading.tape.at("EURUSD", deal.time_ms)
    assert at.time_msc == deal.time_ms
    assert deal.price == (at.bid if sign > 0 else at.ask)
    assert deal.price <= level if down else deal.price >= level


def test_the_comment_of_a_stop_has_the_digits_of_the_symbol() -> None:
    trading = Trading()
    trading.market(1, "USDJPY")
    (position,) = trading.state.positions.values()
    trading.state.positions[position.ticket] = replace(position, sl=1e3)
    trading.state.version += 1
    trading.advance(NOW_MS + 60_000)
    assert trading.deals[-1].comment == "[sl 1000.000]"


@pytest.mark.parametrize("mode", ["hedging", "netting"])
def test_a_pending_order_opens_with_its_ticket_stops_and_magic(mode: Any) -> None:
    trading = Trading(mode)
    price = round(trading.quote("EURUSD").ask - 0.0003, 5)
    more: dict[str, Any] = {"magic": 6, "sl": 0.8, "tp": 1.9, "comment": "wait"}
    assert trading.pending(codes.ORDER_TYPE_BUY_LIMIT, price, **more) == 10009
    (order,) = trading.state.orders.values()
    trading.advance(NOW_MS + DAY_MS)
    assert not trading.state.orders
    (position,), (done,), (deal,) = trading.state.positions.values(), trading.done, trading.deals
    assert position.ticket == done.ticket == order.ticket == deal.order == done.position_id
    assert (position.sl, position.tp, position.magic) == (0.8, 1.9, 6)
    assert position.comment == deal.comment == "wait"
    assert (done.state, done.volume_current) == (codes.ORDER_STATE_FILLED, 0.0)
    assert done.price_open == price
    assert done.price_current == deal.price == position.price_open <= price
    assert done.done_ms == deal.time_ms > order.setup_ms


def test_an_order_without_money_ends_rejected() -> None:
    trading = Trading(balance=1000.0)
    price = round(trading.quote("EURUSD").ask - 0.0003, 5)
    trading.pending(codes.ORDER_TYPE_BUY_LIMIT, price, volume=50.0)
    trading.advance(NOW_MS + DAY_MS)
    assert not trading.state.orders
    assert not trading.state.positions
    assert not trading.deals
    assert [order.state for order in trading.done] == [codes.ORDER_STATE_REJECTED]
    assert trading.tickets.next() == 1001


def test_expired_orders_are_not_filled() -> None:
    trading = Trading()
    price = round(trading.quote("EURUSD").ask - 0.0003, 5)
    wall_s = trading.wall.wall_ms(NOW_MS) // 1000
    trading.pending(2, 0.5, type_time=1)
    trading.pending(2, price, type_time=2, expiration=wall_s + 10)
    trading.pending(2, 0.5, type_time=3, expiration=wall_s + DAY_MS // 1000)
    day, soon, next_day = trading.state.orders.values()
    assert next_expiry(trading.state) == soon.expires_ms == (wall_s + 10 - 7200) * 1000
    # The server's day ends at 22:00 UTC in winter.
    assert day.expires_ms == NOW_MS // DAY_MS * DAY_MS + 22 * HOUR_MS
    assert next_day.expires_ms == day.expires_ms + DAY_MS
    assert trading.desk.next_trigger(trading.state, NOW_MS, NOW_MS + DAY_MS) is None
    assert not trading.desk.expire(trading.state, soon.expires_ms - 1)
    trading.now_ms = soon.expires_ms
    trading.apply(trading.desk.expire(trading.state, trading.now_ms))
    assert set(trading.state.orders) == {day.ticket, next_day.ticket}
    assert [order.state for order in trading.done] == [codes.ORDER_STATE_EXPIRED]
    assert trading.done[0].done_ms == soon.expires_ms
    trading.apply(trading.desk.expire(trading.state, next_day.expires_ms))
    assert not trading.state.orders
    assert next_expiry(trading.state) is None


def test_nothing_triggers_while_the_market_is_closed() -> None:
    weekdays = Terms("Tests", "Tests Ltd", 7, "EET-US", trading_days="weekdays")
    friday = NOW_MS // DAY_MS * DAY_MS + 2 * DAY_MS + 22 * HOUR_MS - 1
    step = [("EURUSD", 0, 1e-4, 1e-4)]
    trading = prepared("hedging", step, now_ms=friday, terms=weekdays)
    found = trading.desk.next_trigger(trading.state, friday, friday + 4 * DAY_MS)
    assert found is not None
    assert weekday(trading.wall.wall_ms(found.at_ms)) == 0
    always = prepared("hedging", step, now_ms=friday)
    earlier = always.desk.next_trigger(always.state, friday, friday + 4 * DAY_MS)
    assert earlier is not None
    assert weekday(trading.wall.wall_ms(earlier.at_ms)) == 5
    saturday = friday + HOUR_MS
    assert trading.desk.next_trigger(trading.state, saturday, saturday + 60_000) is None
    assert always.desk.next_trigger(always.state, saturday, saturday + 60_000) is not None
    halted = always.desk.next_trigger(always.state, friday, friday + 4 * DAY_MS, halted={"EURUSD"})
    assert halted is None


def test_one_tick_may_hit_several_things_in_the_order_of_their_tickets() -> None:
    trading = Trading()
    level = round(trading.quote("EURUSD").bid - 0.0003, 5)
    for _ in range(3):
        trading.market(1, sl=level)
    tickets = list(trading.state.positions)
    trading.advance(NOW_MS + DAY_MS)
    closes = [deal for deal in trading.deals if deal.entry == codes.DEAL_ENTRY_OUT]
    assert [deal.position_id for deal in closes] == tickets
    assert len({deal.time_ms for deal in closes}) == 1


def test_of_one_instant_the_lowest_ticket_comes_first_whatever_its_symbol_and_kind() -> None:
    # The first tick of a minute comes at its first millisecond, in every symbol.
    minute = NOW_MS // 60_000 * 60_000 + 60_000
    trading = Trading()
    trading.market(1, "USDJPY")
    trading.pending(codes.ORDER_TYPE_BUY_LIMIT, 0.5)
    trading.market(1, "EURUSD")
    first, last = trading.state.positions.values()
    (order,) = trading.state.orders.values()
    assert first.ticket < order.ticket < last.ticket
    for position in (first, last):
        trading.state.positions[position.ticket] = replace(position, sl=1e6, tp=1e-6)
    trading.state.orders[order.ticket] = replace(order, price_open=1e6)
    trading.state.version += 1
    found = []
    while trigger := trading.desk.next_trigger(trading.state, minute - 1, minute):
        found.append((trigger.at_ms, trigger.ticket, trigger.kind))
        trading.apply(trading.desk.fire(trading.state, trigger, trading.tickets))
    assert found == [
        (minute, first.ticket, "sl"),
        (minute, order.ticket, "order"),
        (minute, last.ticket, "sl"),
    ]
