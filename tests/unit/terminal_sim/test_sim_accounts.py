"""What a scenario says of an account, as the module shows it."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import terminal_sim.scenario
from terminal_sim.broker.plans import begun, cycles
from terminal_sim.market.instruments import INSTRUMENTS
from terminal_sim.market.prices import Market
from terminal_sim.module.build import build
from terminal_sim.scenario.loading import load
from terminal_sim.scenario.model import Account, Position, Robot, Scenario, Server
from terminal_sim.scenario.moments import Moment
from terminal_sim.terminal.session import Terminal, Timing
from terminal_sim.testing import DirectBrokers, ManualClock, MemoryBoard

NOW_MS = 1_795_005_296_789
DAY_MS = 86_400_000
DEMO = load(Path(next(iter(terminal_sim.scenario.__path__))) / "demo.toml", NOW_MS)
INSTANTS = st.integers(NOW_MS - DAY_MS, NOW_MS)
BOUNDED = settings(max_examples=15)


def module(scenario: Scenario, number: int, now_ms: int) -> tuple[Any, ManualClock]:
    clock = ManualClock(now_ms)
    brokers = DirectBrokers.of(scenario, clock)
    terminal = Terminal(brokers, clock, Timing(login_seconds=0), MemoryBoard())
    account = scenario.accounts[number]
    mt5 = build(terminal)
    given_server = {"password": account.password, "server": account.server}
    assert mt5.initialize()
    assert mt5.login(account.login, **given_server)
    return mt5, clock


@pytest.mark.long
@BOUNDED
@given(st.sampled_from([0, 1, 2]), st.lists(INSTANTS, min_size=1, max_size=4))
def test_equity_is_balance_credit_and_floating_profit(number: int, instants: list[int]) -> None:
    mt5, clock = module(DEMO, number, min(instants))
    for clock.at_ms in sorted(instants):
        info, rows = mt5.account_info(), mt5.positions_get()
        floating = sum(row.profit + row.swap for row in rows)
        assert info.equity == pytest.approx(info.balance + info.credit + floating, abs=0.005)
        assert info.profit == pytest.approx(floating, abs=0.005)
        assert info.margin_free == pytest.approx(info.equity - info.margin, abs=0.005)
        assert (info.margin_level == 0) == (not rows)
        deals = mt5.history_deals_get(0, 2**32)
        credit = sum(deal.profit for deal in deals if deal.type == mt5.DEAL_TYPE_CREDIT)
        paid = sum(deal.profit + deal.swap + deal.commission + deal.fee for deal in deals)
        assert paid - credit == pytest.approx(info.balance, abs=0.005)
        assert credit == info.credit


@pytest.mark.long
@BOUNDED
@given(st.sampled_from([0, 1, 2]), INSTANTS, INSTANTS)
def test_what_was_asked_before_changes_nothing(number: int, one: int, two: int) -> None:
    one, two = sorted((one, two))
    mt5, clock = module(DEMO, number, one)
    mt5.account_info(), mt5.positions_get(), mt5.history_deals_get(0, 2**32)
    clock.at_ms = two
    fresh, _ = module(DEMO, number, two)
    assert mt5.account_info() == fresh.account_info()
    assert mt5.positions_get() == fresh.positions_get()
    assert mt5.orders_get() == fresh.orders_get()
    assert mt5.history_deals_get(0, 2**32) == fresh.history_deals_get(0, 2**32)
    assert mt5.history_orders_get(0, 2**32) == fresh.history_orders_get(0, 2**32)


@pytest.mark.long
@BOUNDED
@given(st.sampled_from([0, 1, 2]), INSTANTS)
def test_tickets_are_unique_and_history_explains_the_positions(number: int, now_ms: int) -> None:
    mt5, _ = module(DEMO, number, now_ms)
    deals, orders = mt5.history_deals_get(0, 2**32), mt5.history_orders_get(0, 2**32)
    tickets = [row.ticket for row in (*deals, *orders, *mt5.orders_get())]
    assert len(set(tickets)) == len(tickets)
    opened = {deal.position_id for deal in deals if deal.order and deal.entry == 0}
    closed = {deal.position_id for deal in deals if deal.entry == 1}
    assert {row.identifier for row in mt5.positions_get()} == opened - closed
    assert {deal.order for deal in deals if deal.order} == {order.ticket for order in orders}
    assert [deal.time_msc for deal in deals] == sorted(deal.time_msc for deal in deals)


def test_profit_follows_the_price_in_the_currency_of_the_account() -> None:
    mt5, clock = module(DEMO, 2, NOW_MS)
    market = Market(DEMO.seed)
    row = next(row for row in mt5.positions_get() if row.symbol == "NZDUSD")
    price = market.quotes("NZDUSD", np.array([clock.at_ms]))["bid"][0]
    yen = market.quotes("USDJPY", np.array([clock.at_ms]))["bid"][0]
    size = row.volume * INSTRUMENTS["NZDUSD"].contract
    assert row.price_current == price
    assert row.profit == round((price - row.price_open) * size * yen)
    assert mt5.account_info().currency_digits == 0


def test_it_moves_with_the_ticks_and_only_with_them() -> None:
    mt5, clock = module(DEMO, 0, NOW_MS)
    seen = []
    for clock.at_ms in range(NOW_MS, NOW_MS + 5000, 10):
        seen.append(mt5.account_info().equity)
    changes = sum(one != two for one, two in pairwise(seen))
    assert 10 < changes < 200


def test_margin_is_volume_times_contract_over_leverage() -> None:
    scenario = holding(
        Position("USDCAD", "buy", 0.5, Moment(NOW_MS)),
        Position("XAUUSD", "sell", 0.1, Moment(NOW_MS), price_open=2000.0),
    )
    mt5, _ = module(scenario, 0, NOW_MS)
    assert mt5.account_info().margin == pytest.approx(0.5 * 100_000 / 100 + 0.1 * 100 * 2000 / 100)


def test_buying_and_selling_pay_the_spread() -> None:
    scenario = holding(
        Position("EURUSD", "buy", 1.0, Moment(NOW_MS)),
        Position("EURUSD", "sell", 1.0, Moment(NOW_MS)),
    )
    mt5, _ = module(scenario, 0, NOW_MS)
    tick = mt5.symbol_info_tick("EURUSD")
    bought, sold = mt5.positions_get()
    assert (bought.price_open, bought.price_current) == (tick.ask, tick.bid)
    assert (sold.price_open, sold.price_current) == (tick.bid, tick.ask)
    assert bought.profit == sold.profit == pytest.approx((tick.bid - tick.ask) * 100_000)


def test_before_registration_there_is_nothing() -> None:
    mt5, _ = module(DEMO, 1, NOW_MS - 90 * DAY_MS)
    info = mt5.account_info()
    assert (info.balance, info.credit, info.equity, info.margin_level) == (0, 0, 0, 0)
    assert mt5.positions_get() == mt5.orders_get() == mt5.history_deals_get(0, 2**32) == ()


@BOUNDED
@given(st.floats(0.2, 5000), st.integers(0, 10**9))
def test_a_robot_has_begun_what_its_plan_says(period_s: float, passed_ms: int) -> None:
    robot = Robot("EURUSD", 0.01, Moment(NOW_MS), period_s, period_s / 2)
    count = begun(robot, NOW_MS + passed_ms)
    opened = cycles(robot, 0, max(count - 1, 0), count + 1).opened.tolist()
    assert opened[0] <= NOW_MS + passed_ms < opened[-1]
    assert begun(robot, opened[-1]) == count + 1
    assert begun(robot, opened[-1] - 1) == count
    assert begun(robot, NOW_MS - 1) == 0


def test_500_positions_are_valued_together() -> None:
    names = sorted(INSTRUMENTS)
    scenario = holding(
        *(Position(names[i % 15], "buy", 0.01, Moment(NOW_MS - i * 1000)) for i in range(500))
    )
    mt5, _ = module(scenario, 0, NOW_MS)
    rows = mt5.positions_get()
    assert len(rows) == mt5.positions_total() == 500
    assert [row.time_msc for row in rows] == sorted(row.time_msc for row in rows)
    assert mt5.account_info().profit == pytest.approx(sum(row.profit for row in rows))


def holding(*positions: Position) -> Scenario:
    account = Account(1, "secret", "S", balance=1e6, positions=positions)
    return Scenario((Server("S"),), (account,), seed=5)
