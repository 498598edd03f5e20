"""A broker that ends and begins again, or is killed, deals as one that never did."""

from random import Random
from typing import Any, Literal, Self

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from terminal_sim.broker.house import House
from terminal_sim.broker.journal import Journal
from terminal_sim.broker.values import TradeRequest
from terminal_sim.faults.kinds import MarketClosed
from terminal_sim.scenario.model import Account, Order, Position, Robot, Scenario, Server
from terminal_sim.scenario.moments import DAY_MS, Moment
from terminal_sim.testing import ManualClock

# 2026-11-20 15:00:00 UTC, a Friday: the weekend is part of every run.
FIRST_MS = 1_795_186_800_000
HOUR_MS = 3_600_000
SYMBOLS = ("EURUSD", "BTCUSD")


class Disk(Journal):
    """A journal in memory that outlives its house: what was committed is there again."""

    def close(self) -> None:
        pass

    def again(self) -> Self:
        if self._base.in_transaction:
            self._base.rollback()
        return type(self)(self._base, self.where)


class Run:
    """A house, what somebody does to it, and restarts; equal seeds do equal things.

    Args:
        seed: Decides everything but the restarts.
        restarts: At which steps it is ended (True), or killed (False).
    """

    def __init__(self, seed: int, restarts: dict[int, bool]) -> None:
        self.random = Random(seed)
        self.restarts = restarts
        self.clock = ManualClock(FIRST_MS)
        self.scenario = self._scenario()
        self.closed = False
        self.journal = Disk.in_memory()
        self._open()

    def through(self, steps: int) -> "Run":
        for step in range(steps):
            self.clock.at_ms += self.random.choice([30_000, 600_000, HOUR_MS, 10 * HOUR_MS])
            self._come()
            if step in self.restarts:
                self._restart(clean=self.restarts[step])
            self._act()
        self.house.mend(None)
        self.clock.at_ms += 3 * DAY_MS
        self._come()
        return self

    def everything(self) -> dict[str, Any]:
        state = self.house.state(1)
        assert state is not None
        return {
            "money": (state.balance, state.credit, state.version),
            "positions": list(state.positions.values()),
            "orders": list(state.orders.values()),
            "deals": self.house.history(1, "deals"),
            "done": self.house.history(1, "orders"),
        }

    def _open(self) -> None:
        self.house = House(self.scenario, "S", self.clock, self.journal)

    def _come(self) -> None:
        list(self.house.advance(self.clock.at_ms))

    def _restart(self, *, clean: bool) -> None:
        if clean:
            self.house.close()
        self.journal = self.journal.again()
        self._open()
        if self.closed:
            self.house.inject(1, MarketClosed())
        self._come()

    def _act(self) -> None:
        random, state = self.random, self.house.state(1)
        assert state is not None
        deed, volume = random.randrange(6), random.choice([0.1, 0.3, 2.0])
        symbol, sign = random.choice(SYMBOLS), random.randrange(2)
        if deed == 0:
            self.closed = not self.closed
            if self.closed:
                self.house.inject(1, MarketClosed())
            else:
                self.house.mend(1)
        elif deed in {1, 2}:
            request = TradeRequest(action=1, symbol=symbol, volume=volume, type=sign)
            self.house.trade(1, request, reason=3)
        elif deed == 3 and state.positions:
            held = random.choice(list(state.positions.values()))
            close = TradeRequest(
                action=1,
                symbol=held.symbol,
                volume=min(volume, held.volume),
                type=1 if held.sign > 0 else 0,
                position=held.ticket,
            )
            self.house.trade(1, close, reason=3)
        elif deed == 4:
            self.house.deposit(1, random.choice([100.0, -50.0]), 2)

    def _scenario(self) -> Scenario:
        random = self.random
        hold = random.choice([45.0, 1800.0, 7000.0])
        account = Account(
            1,
            "secret",
            "S",
            balance=random.choice([20_000.0, 1e6]),
            margin_mode=random.choice(["hedging", "netting"]),
            positions=tuple(self._position(symbol) for symbol in SYMBOLS),
            orders=tuple(
                Order(
                    random.choice(SYMBOLS),
                    random.choice(["buy_limit", "sell_stop"]),
                    0.1,
                    Moment(FIRST_MS - random.randrange(DAY_MS)),
                )
                for _ in range(random.randrange(3))
            ),
            robot=Robot(
                random.choice(SYMBOLS), 0.2, Moment(FIRST_MS - random.randrange(DAY_MS)), 7200, hold
            ),
        )
        days: Literal["all", "weekdays"] = random.choice(["all", "weekdays"])
        return Scenario((Server("S", clock="UTC", trading_days=days),), (account,), seed=5)

    def _position(self, symbol: str) -> Position:
        opened = FIRST_MS + self.random.randrange(-DAY_MS, DAY_MS // 4)
        closed = Moment(opened + self.random.randrange(HOUR_MS, 3 * DAY_MS))
        return Position(symbol, self.random.choice(["buy", "sell"]), 0.5, Moment(opened), closed)


def seen(seed: int, restarts: dict[int, bool]) -> dict[str, Any]:
    return Run(seed, restarts).through(14).everything()


@pytest.mark.long
# A seed has no smaller seed that fails likewise: nothing to shrink.
@settings(max_examples=16, phases=[Phase.generate])
@given(
    st.integers(0, 2**20),
    st.dictionaries(st.integers(0, 13), st.booleans(), min_size=1, max_size=14),
)
def test_a_restart_changes_nothing(seed: int, restarts: dict[int, bool]) -> None:
    without, with_them = seen(seed, {}), seen(seed, restarts)
    for part, value in without.items():
        assert value == with_them[part], part
    tickets = [row.ticket for row in (*without["deals"], *without["done"], *without["orders"])]
    assert len(tickets) == len(set(tickets))
