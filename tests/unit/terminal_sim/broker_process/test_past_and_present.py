"""The past worked out at once is the past lived through."""

from collections import Counter
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from terminal_sim.broker.house import House
from terminal_sim.market.prices import Market
from terminal_sim.scenario.loading import faults
from terminal_sim.scenario.model import Account, Order, Position, Robot, Scenario, Server
from terminal_sim.scenario.moments import DAY_MS, Moment
from terminal_sim.testing import ManualClock

# 2026-11-18 12:34:56.789 UTC, a Wednesday: a night that counts three comes, a weekend was.
NOW_MS = 1_795_005_296_789
FIRST_MS = NOW_MS - 5 * DAY_MS
SYMBOLS = ("EURUSD", "USDJPY", "BTCUSD", "XAUUSD")
MARKET = Market(5)


class Chances:
    """Draws scenarios in which much happens from one seed."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)

    def scenario(self) -> Scenario:
        random = self.random
        netting, quiet = random.random() < 0.5, random.random() < 0.3
        account = Account(
            1,
            "secret",
            "S",
            currency=random.choice(["USD", "JPY", "EUR"]),
            balance=random.choice([1500.0, 5e6]),
            credit=random.choice([0.0, 100.0]),
            margin_mode="netting" if netting else "hedging",
            positions=() if quiet else self.netted() if netting else self.positions(10),
            orders=tuple(self.order() for _ in range(4)),
            robot=None if quiet or random.random() < 0.3 else self.robot(netting),
        )
        server = Server(
            "S",
            commission=random.choice([0.0, 3.5]),
            trading_days=random.choice(["all", "weekdays"]),
        )
        return Scenario((server,), (account,), seed=5)

    def positions(self, count: int) -> tuple[Position, ...]:
        return tuple(
            self.position(self.random.choice(SYMBOLS), self.instant()) for _ in range(count)
        )

    def netted(self) -> tuple[Position, ...]:
        """One after the other in each symbol."""
        found = []
        for symbol in SYMBOLS[:3]:
            times = sorted(self.instant() for _ in range(4))
            found += [
                self.position(symbol, times[0], times[1]),
                self.position(symbol, times[2], times[3]),
            ]
        return tuple(found)

    def instant(self) -> int:
        return FIRST_MS + self.random.randrange(7 * DAY_MS)

    def near(self, symbol: str, at_ms: int) -> float:
        bid = float(MARKET.quotes(symbol, np.array([at_ms]))["bid"][0])
        return bid * (1 + self.random.uniform(-0.006, 0.006))

    def position(self, symbol: str, opened: int, closed: int | None = None) -> Position:
        random = self.random
        if closed is None and random.random() < 0.8:
            closed = opened + random.randrange(1, 3 * DAY_MS)
        return Position(
            symbol,
            random.choice(["buy", "sell"]),
            random.choice([0.1, 0.25, 1.0]),
            Moment(opened),
            None if closed is None else Moment(closed + 1),
            sl=self.near(symbol, opened) if random.random() < 0.25 else 0.0,
            tp=self.near(symbol, opened) if random.random() < 0.25 else 0.0,
            magic=random.choice([0, 7]),
        )

    def order(self) -> Order:
        random, symbol, at_ms = self.random, self.random.choice(SYMBOLS), self.instant()
        return Order(
            symbol,
            random.choice(["buy_limit", "sell_limit", "buy_stop", "sell_stop"]),
            random.choice([0.1, 30.0]),
            Moment(at_ms),
            price=self.near(symbol, at_ms),
            sl=random.choice([0.0, self.near(symbol, at_ms)]),
            comment="waits",
        )

    def robot(self, netting: bool) -> Robot:
        random = self.random
        hold = random.choice([30.0, 3900.0])
        symbol = SYMBOLS[3] if netting else random.choice(SYMBOLS)
        return Robot(symbol, 0.2, Moment(FIRST_MS + random.randrange(DAY_MS)), 4000.0, hold)


def everything(house: House) -> dict[str, Any]:
    state = house.state(1)
    assert state is not None
    return {
        "balance": state.balance,
        "credit": state.credit,
        "positions": sorted(state.positions.values(), key=lambda p: p.ticket),
        "orders": sorted(state.orders.values(), key=lambda o: o.ticket),
        "deals": house.history(1, "deals"),
        "done": house.history(1, "orders"),
    }


def lived(scenario: Scenario, first_ms: int, steps: list[int]) -> House:
    clock = ManualClock(first_ms)
    house = House(scenario, "S", clock)
    for step in steps:
        clock.at_ms += step
        for _ in house.advance(clock.at_ms):
            pass
    return house


@pytest.mark.long
# A seed has no smaller seed that fails likewise: nothing to shrink.
@settings(max_examples=120, phases=[Phase.generate])
@given(
    st.integers(0, 2**20),
    st.integers(FIRST_MS, NOW_MS),
    st.lists(st.integers(1, 2 * DAY_MS), min_size=1, max_size=4),
)
def test_the_past_worked_out_is_the_past_lived_through(
    seed: int, first_ms: int, steps: list[int]
) -> None:
    scenario = Chances(seed).scenario()
    assert not list(faults(scenario, NOW_MS))
    living = everything(lived(scenario, first_ms, steps))
    at_once = everything(House(scenario, "S", ManualClock(first_ms + sum(steps))))
    for part, value in living.items():
        assert value == at_once[part], part


def test_a_past_that_ends_between_a_robots_deals_is_taken_up() -> None:
    """The robot deals into what an order has opened, which others may not close."""
    robot = Robot("XAUUSD", 0.2, Moment(FIRST_MS + 60_000), 4000.0, 3900.0)
    order = Order("XAUUSD", "buy_limit", 1.0, Moment(FIRST_MS), price=1e6)
    account = Account(
        1, "secret", "S", balance=5e6, margin_mode="netting", orders=(order,), robot=robot
    )
    scenario = Scenario((Server("S"),), (account,), seed=5)
    living = everything(lived(scenario, FIRST_MS + 600_000, [DAY_MS]))
    assert living == everything(House(scenario, "S", ManualClock(FIRST_MS + 600_000 + DAY_MS)))
    assert any(deal.ticket % 8 == 5 for deal in living["deals"])


@pytest.mark.long
def test_these_scenarios_have_everything_in_them() -> None:
    """Else the property above would hold of nothing."""
    seen: Counter[Any] = Counter()
    for seed in range(30):
        scenario = Chances(seed).scenario()
        found = everything(lived(scenario, FIRST_MS, [7 * DAY_MS]))
        seen.update(("reason", deal.reason) for deal in found["deals"])
        seen.update(("entry", deal.entry) for deal in found["deals"])
        seen.update(("state", done.state) for done in found["done"])
        seen.update(("paid swap", deal.swap != 0) for deal in found["deals"])
        seen.update(("swap", position.swap != 0) for position in found["positions"])
    wanted = {
        ("reason", 4),
        ("reason", 5),
        ("entry", 2),
        ("state", 5),
        ("paid swap", True),
        ("swap", True),
    }
    assert wanted <= set(seen), seen
