"""An account with a desk of its own, as the tests of the trading rules use it."""

from collections.abc import Iterator
from itertools import count
from typing import Any, Literal

from terminal_sim.broker import codes, retcodes
from terminal_sim.broker.desk import Desk
from terminal_sim.broker.rollover import rollover
from terminal_sim.broker.state import AccountState
from terminal_sim.broker.values import Change, Deal, Order, Profile, Terms, TradeRequest
from terminal_sim.broker.valuing import Valuation, Valuer
from terminal_sim.market.clocks import WallClock
from terminal_sim.market.prices import Market
from terminal_sim.market.tape import Quote, Tape

# 2026-11-18 12:34:56.789 UTC, a Wednesday.
NOW_MS = 1_795_005_296_789
DAY_MS = 86_400_000
TERMS = Terms("Tests", "Tests Ltd", 7, "EET-US")


class Counter:
    def __init__(self, first: int = 1000) -> None:
        self._numbers: Iterator[int] = count(first)

    def next(self) -> int:
        return next(self._numbers)


class Trading:
    """Requests by their fields; what they change is applied and remembered."""

    def __init__(
        self,
        mode: Literal["hedging", "netting"] = "hedging",
        *,
        currency: str = "USD",
        balance: float = 100_000.0,
        terms: Terms = TERMS,
        now_ms: int = NOW_MS,
    ) -> None:
        self.now_ms = now_ms
        self.wall = WallClock(terms.clock)
        self.tape = Tape(Market(terms.seed))
        self.desk = Desk(self.tape, terms, self.wall)
        self.deposit = balance
        self.state = AccountState(Profile(1, "Test", currency, 100, mode), balance=balance)
        self.tickets = Counter()
        self.deals: list[Deal] = []
        self.done: list[Order] = []
        self._valuer = Valuer(self.tape)

    def quote(self, symbol: str) -> Quote:
        return self.tape.at(symbol, self.now_ms)

    def value(self) -> Valuation:
        return self._valuer.value(self.state, self.now_ms)

    def send(self, **fields: Any) -> int:
        return self.ask(TradeRequest(**fields))

    def ask(self, request: TradeRequest, *, investor: bool = False, reason: int = 3) -> int:
        outcome = self.desk.execute(
            self.state, request, self.now_ms, self.tickets, reason=reason, investor=investor
        )
        assert outcome.result.comment == retcodes.TEXTS[outcome.result.retcode]
        assert bool(outcome.change) == (outcome.result.retcode == retcodes.DONE)
        self.apply(outcome.change)
        return outcome.result.retcode

    def apply(self, change: Change) -> None:
        if change:
            self.state.apply(change)
            self.deals += change.deals
            self.done += change.done

    def market(self, sign: int, symbol: str = "EURUSD", volume: float = 0.1, **more: Any) -> int:
        kind = codes.ORDER_TYPE_BUY if sign > 0 else codes.ORDER_TYPE_SELL
        return self.send(action=1, type=kind, symbol=symbol, volume=volume, **more)

    def pending(self, kind: int, price: float, symbol: str = "EURUSD", **more: Any) -> int:
        fields = {"action": 5, "type": kind, "symbol": symbol, "volume": 0.1, "price": price}
        return self.send(**(fields | more))

    def advance(self, until_ms: int) -> None:
        """Let every stop and pending order up to an instant have its tick."""
        since = self.now_ms
        while trigger := self.desk.next_trigger(self.state, since, until_ms):
            self.apply(self.desk.fire(self.state, trigger, self.tickets))
            since = trigger.at_ms - 1
        self.now_ms = until_ms

    def roll(self, at_ms: int) -> None:
        self.apply(rollover(self.state, self.tape, at_ms, self.wall))
