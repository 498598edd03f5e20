"""An account at an instant: a pure function of (scenario, time), with its past work cached."""

from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from terminal_sim.broker.plans import ACCOUNT_TICKETS, begun, cycles, registered_ms, written
from terminal_sim.broker.trades import NEVER, SYMBOLS, Trades, priced
from terminal_sim.market.clocks import WallClock
from terminal_sim.market.instruments import INSTRUMENTS
from terminal_sim.market.money import decimals, legs, rate
from terminal_sim.market.noise import Floats, Ints
from terminal_sim.market.tape import Tape
from terminal_sim.scenario.model import Account, Robot, Server

# Robot cycles priced at a time: prices of the next minutes come in one vectorised call.
_AHEAD = 64


@dataclass(frozen=True)
class Held:
    """The open positions between two events, prepared for valuing."""

    key: tuple[int, int, int, int]
    trades: Trades
    currency: str

    @cached_property
    def symbols(self) -> tuple[str, ...]:
        """Symbols of the positions, without repetition."""
        return tuple(SYMBOLS[i] for i in np.unique(self.trades.symbol).tolist())

    @cached_property
    def watched(self) -> tuple[str, ...]:
        """Those, and the symbols that convert their profits."""
        sources = {INSTRUMENTS[symbol].profit for symbol in self.symbols}
        crosses = {leg for source in sources for leg, _ in legs(source, self.currency)}
        return tuple(sorted({*self.symbols, *crosses}))

    @cached_property
    def place(self) -> Ints:
        """For each position, the index of its symbol in ``symbols``."""
        place: Ints = np.unique(self.trades.symbol, return_inverse=True)[1]
        return place

    @cached_property
    def size(self) -> Floats:
        """Units of each position, negative when sold."""
        contracts = np.array([INSTRUMENTS[symbol].contract for symbol in self.symbols])
        size: Floats = self.trades.sign * self.trades.volume * contracts[self.place]
        return size

    @cached_property
    def margin(self) -> float:
        """Margin of all positions."""
        return float(self.trades.margin.sum())


@dataclass(frozen=True)
class Valued:
    """An account valued at the newest ticks.

    Attributes:
        held: Its open positions.
        instants: Times of the ticks used, in the order of ``held.watched``.
        price: Present price of each position.
        profit: Floating profit of each position, rounded.
        balance: Sum of the deals.
        credit: Credit line.
        equity: Balance, credit and floating profit.
    """

    held: Held
    instants: tuple[int, ...]
    price: Floats
    profit: Floats
    balance: float
    credit: float
    equity: float


class Book:
    """One account's past, present and pending.

    Args:
        tape: Prices.
        server: The account's server.
        account: As the scenario describes it.
        ordinal: Its place in the scenario, which decides its ticket numbers.
    """

    def __init__(self, tape: Tape, server: Server, account: Account, ordinal: int) -> None:
        self.tape = tape
        self.server = server
        self.account = account
        self.base = (ordinal + 1) * ACCOUNT_TICKETS
        self.wall = WallClock(server.clock)
        self.registered_ms = registered_ms(account)
        self.digits = decimals(account.currency)
        self._written = self._priced_written()
        self._opened = np.sort(self._written.opened).tolist()
        ended = np.sort(self._written.closed[self._written.closed < NEVER])
        self._closed = ended.tolist()
        order = np.argsort(self._written.closed, kind="stable")
        self._earned = np.concatenate(([0.0], np.cumsum(self._written.profit[order])))
        self._robot: tuple[Trades, Floats] | None = None
        self._valued: Valued | None = None

    def trades(self, now_ms: int) -> Trades:
        """Return every trade opened up to a UTC instant; those still open close later."""
        part = self._written.take(self._written.opened <= now_ms)
        robot = self.account.robot
        if robot is None:
            return part
        count = begun(robot, now_ms)
        return part.join(self._cycles(robot, count)[0].take(np.arange(count)))

    def value(self, now_ms: int) -> Valued:
        """Return the account at the newest ticks at or before a UTC instant."""
        held = self._held(now_ms)
        quotes = {symbol: self.tape.at(symbol, now_ms) for symbol in held.watched}
        instants = tuple(quote.time_msc for quote in quotes.values())
        last = self._valued
        if last and last.held is held and last.instants == instants:
            return last
        target = self.account.currency
        bids = np.array([quotes[symbol].bid for symbol in held.symbols])
        asks = np.array([quotes[symbol].ask for symbol in held.symbols])
        to_account = np.array(
            [
                rate(INSTRUMENTS[symbol].profit, target, lambda leg: quotes[leg].bid)
                for symbol in held.symbols
            ]
        )
        price = np.where(held.trades.sign > 0, bids[held.place], asks[held.place])
        move = (price - held.trades.price) * held.size * to_account[held.place]
        valued = self._total(now_ms, held, instants, price, np.round(move, self.digits))
        self._valued = valued
        return valued

    def balance(self, now_ms: int) -> float:
        """Return the sum of the deals up to a UTC instant, credit apart."""
        if now_ms < self.registered_ms:
            return 0.0
        total = self.account.balance + float(self._earned[bisect_right(self._closed, now_ms)])
        robot = self.account.robot
        if robot:
            done = begun(robot, now_ms - round(robot.hold_s * 1000))
            total += float(self._cycles(robot, done)[1][done])
        return round(total, self.digits)

    def _total(
        self, now_ms: int, held: Held, instants: tuple[int, ...], price: Floats, profit: Floats
    ) -> Valued:
        balance = self.balance(now_ms)
        credit = self.account.credit if now_ms >= self.registered_ms else 0.0
        equity = round(balance + credit + float(profit.sum()), self.digits)
        return Valued(held, instants, price, profit, balance, credit, equity)

    def _held(self, now_ms: int) -> Held:
        robot = self.account.robot
        hold_ms = round(robot.hold_s * 1000) if robot else 0
        key = (
            bisect_right(self._opened, now_ms),
            bisect_right(self._closed, now_ms),
            begun(robot, now_ms) if robot else 0,
            begun(robot, now_ms - hold_ms) if robot else 0,
        )
        if self._valued and self._valued.held.key == key:
            return self._valued.held
        mine = (self._written.opened <= now_ms) & (self._written.closed > now_ms)
        trades = self._written.take(mine)
        if robot:
            trades = trades.join(self._cycles(robot, key[2])[0].take(np.arange(key[3], key[2])))
        order = np.lexsort((trades.ticket, trades.opened))
        return Held(key, trades.take(order), self.account.currency)

    def _cycles(self, robot: Robot, count: int) -> tuple[Trades, Floats]:
        """Return at least ``count`` cycles of the robot and the running sums of their profits."""
        known = self._robot
        if known and count <= known[0].ticket.size:
            return known
        have = known[0].ticket.size if known else 0
        plan = cycles(robot, self.base, have, count + _AHEAD)
        more = priced(self.tape.market, plan, self.account.currency, self.account.leverage)
        trades = known[0].join(more) if known else more
        earned = np.concatenate(([0.0], np.cumsum(trades.profit)))
        self._robot = trades, earned
        return trades, earned

    def _priced_written(self) -> Trades:
        plan = written(self.account, self.base)
        return priced(self.tape.market, plan, self.account.currency, self.account.leverage)
