"""What an account is worth, and what a deal would need and bring."""

from math import inf, nan
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.terminal_sim.broker.trading import NOW_MS, Trading

from terminal_sim.broker.estimates import order_margin, order_profit
from terminal_sim.broker.margins import held_margin
from terminal_sim.broker.state import AccountState
from terminal_sim.broker.valuing import Valuer
from terminal_sim.market.instruments import INSTRUMENTS

DEALS = st.lists(
    st.tuples(st.sampled_from(sorted(INSTRUMENTS)), st.sampled_from([1, -1]), st.integers(1, 50)),
    max_size=12,
)


@settings(max_examples=40)
@given(DEALS, st.sampled_from(["USD", "EUR", "JPY", "GBP"]), st.integers(0, 3_600_000))
def test_each_position_is_worth_what_closing_it_would_bring(
    deals: list[tuple[str, int, int]], currency: str, passed: int
) -> None:
    trading = Trading(currency=currency, balance=1e10)
    for symbol, sign, hundredths in deals:
        assert trading.market(sign, symbol, hundredths / 100) == 10009
    trading.now_ms += passed
    valued = trading.value()
    rows = list(trading.state.positions.values())
    assert valued.tickets == tuple(position.ticket for position in rows)
    for position, price, profit in zip(rows, valued.price, valued.profit, strict=True):
        quote = trading.quote(position.symbol)
        assert price == (quote.bid if position.sign > 0 else quote.ask)
        closing: dict[str, Any] = {"volume": position.volume, "position": position.ticket}
        assert trading.market(-position.sign, position.symbol, **closing) == 10009
        assert trading.deals[-1].profit == pytest.approx(profit, abs=1e-9)
    assert trading.state.balance == pytest.approx(valued.equity, abs=1e-6)
    empty = trading.value()
    assert (empty.floating, empty.margin, empty.margin_level) == (0, 0, 0)
    assert empty.equity == empty.margin_free == trading.state.balance


def test_nothing_is_worked_out_twice() -> None:
    trading = Trading()
    trading.market(1)
    first = trading.value()
    assert trading.value() is first
    trading.now_ms += 60_000
    moved = trading.value()
    assert moved is not first
    assert moved.instants != first.instants
    trading.market(1)
    assert trading.value() is not moved
    assert len(trading.value().tickets) == 2


def test_another_account_of_the_same_version_is_another_account() -> None:
    one, two = Trading(), Trading(balance=5.0)
    valuer = Valuer(one.tape)
    assert valuer.value(one.state, NOW_MS).equity == 100_000
    assert valuer.value(two.state, NOW_MS).equity == 5


def test_credit_counts_as_equity() -> None:
    trading = Trading()
    state = AccountState(trading.state.profile, balance=100.0, credit=50.0)
    assert Valuer(trading.tape).value(state, NOW_MS).equity == 150


def test_of_hedged_volume_one_side_is_charged() -> None:
    trading = Trading("hedging", balance=1e6)
    trading.market(1, volume=1.0)
    one = trading.value().margin
    assert one == order_margin(trading.tape, "USD", 100, 0, "EURUSD", 1.0, 0.0 + 1, NOW_MS)
    trading.market(-1, volume=1.0)
    assert trading.value().margin == one
    trading.market(-1, volume=0.5)
    assert trading.value().margin == pytest.approx(1.5 * one, abs=0.01)
    trading.market(1, "USDJPY")
    assert trading.value().margin == pytest.approx(1.5 * one + 100, abs=0.01)


def test_the_larger_side_and_both_sides_are_averaged_as_metatrader_does() -> None:
    # Gold, contract 100, leverage 100: the margin of a lot is its price.
    trading = Trading(balance=1e9)
    for sign, volume in ((1, 2.0), (1, 1.0), (-1, 1.0)):
        trading.market(sign, "XAUUSD", volume)
        trading.now_ms += 3_600_000
    two, one, sold = (p.price_open for p in trading.state.positions.values())
    assert len({two, one, sold}) == 3
    uncovered = 2.0 * (2 * two + one) / 3
    covered = 1.0 * (2 * two + one + sold) / 4
    assert trading.value().margin == pytest.approx(uncovered + covered, abs=0.02)
    held = trading.state.positions.values()
    assert held_margin(held, "netting") == pytest.approx(2 * two + one + sold, abs=0.02)


def test_estimates_are_what_deals_then_take_and_bring() -> None:
    for currency in ("USD", "JPY"):
        for symbol in INSTRUMENTS:
            trading = Trading(currency=currency, balance=1e9)
            quote = trading.quote(symbol)
            margin = order_margin(trading.tape, currency, 100, 0, symbol, 1.0, quote.ask, NOW_MS)
            trading.market(1, symbol, 1.0)
            (position,) = trading.state.positions.values()
            assert position.margin == margin > 0
            terms = trading.tape, currency, 0, symbol, 1.0, position.price_open, quote.bid, NOW_MS
            assert order_profit(*terms) == pytest.approx(float(trading.value().profit[0]), abs=1e-9)
            assert order_profit(*terms) < 0


@pytest.mark.parametrize("mode", ["hedging", "netting"])
def test_no_margin_is_a_number_like_any_other(mode: Any) -> None:
    assert repr(held_margin((), mode)) == "0.0"


@pytest.mark.parametrize("wrong", [nan, inf, 0.0, -1.0, 1e300])
def test_estimates_refuse_what_is_no_order(wrong: float) -> None:
    tape = Trading().tape
    for volume, price in ((wrong, 1.0), (1.0, wrong)):
        with pytest.raises(ValueError, match="positive"):
            order_margin(tape, "USD", 100, 0, "EURUSD", volume, price, NOW_MS)
        with pytest.raises(ValueError, match="positive"):
            order_profit(tape, "USD", 0, "EURUSD", volume, price, 1.0, NOW_MS)
    with pytest.raises(ValueError, match="neither buys nor sells"):
        order_margin(tape, "USD", 100, 8, "EURUSD", 1.0, 1.0, NOW_MS)
    with pytest.raises(KeyError):
        order_profit(tape, "USD", 0, "NOSUCH", 1.0, 1.0, 1.0, NOW_MS)
