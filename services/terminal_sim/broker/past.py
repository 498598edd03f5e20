"""An account's past up to the instant its broker began: in columns where nothing interferes.

Positions without stops, and robots' trades, depend on nothing but the market: they are priced
together and stay columns. What waits for prices (pending orders, stops; on netting accounts
everything in a symbol that has such) is lived through once, by the same code as the present.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain

import numpy as np

from terminal_sim.broker import rows
from terminal_sim.broker.agenda import Doings, traded, upcoming
from terminal_sim.broker.in_hand import InHand
from terminal_sim.broker.life import Life, Numbered, Rules
from terminal_sim.broker.nights import nights
from terminal_sim.broker.plans import ACCOUNT_TICKETS, LIVE_TICKETS, begun, cycles
from terminal_sim.broker.state import AccountState
from terminal_sim.broker.trades import (
    SYMBOLS,
    Nights,
    Plan,
    Pricing,
    Trades,
    collected,
    priced,
)
from terminal_sim.broker.values import Change, Deal, Order, Profile
from terminal_sim.broker.wanted import Wanted
from terminal_sim.market.money import decimals
from terminal_sim.scenario.model import Account, Robot

_NO_NIGHTS = Nights(np.empty(0, np.int64), np.empty(0, np.int64))


def profile(account: Account) -> Profile:
    """Return what does not change about an account."""
    return Profile(
        account.login, account.name, account.currency, account.leverage, account.margin_mode
    )


def pricing(account: Account, rules: Rules, held: Nights = _NO_NIGHTS) -> Pricing:
    """Return how an account's planned trades are priced."""
    market, commission = rules.tape.market, rules.terms.commission
    return Pricing(market, account.currency, account.leverage, commission, held)


@dataclass(frozen=True)
class Begun:
    """An account at the end of its past.

    Attributes:
        state: What it holds.
        changes: Those that are in no column.
        hand: What of its plans was begun and not ended.
    """

    state: AccountState
    changes: tuple[Change, ...]
    hand: InHand


class Past:
    """What an account has done until an instant.

    Args:
        account: As the scenario describes it.
        ordinal: Its place in the scenario, which decides its ticket numbers.
        rules: Of its server.
        until_ms: The instant (UTC epoch milliseconds), inclusive.
    """

    def __init__(self, account: Account, ordinal: int, rules: Rules, until_ms: int) -> None:
        self.account = account
        self.base = (ordinal + 1) * ACCOUNT_TICKETS
        self.until_ms = until_ms
        self._rules = rules
        self._all = Doings.of(account, self.base, self._costs())
        self._still, self._eventful = _split(account, self._all)

    def doings(self) -> Doings:
        """Return everything the scenario plans for the account."""
        return self._all

    @cached_property
    def trades(self) -> Trades:
        """The trades in columns."""
        plan = self._still.plan.take(self._still.plan.opened <= self.until_ms)
        if self._still.robot:
            plan = plan.join(self._cycles(self._still.robot))
        first = int(plan.opened.min(initial=self.until_ms))
        costs = self._costs(nights(self._rules.wall, first - 1, self.until_ms))
        return priced(costs, plan, self.until_ms)

    def live_through(self, hand: InHand) -> Iterator[Change]:
        """Yield the changes of the rest, in time order; in ``hand`` is what was not ended."""
        state = AccountState(profile(self.account))
        costs = self._costs()
        days = self._rules.terms.trading_days
        first = self._eventful.first_ms() - 1
        if first >= self.until_ms:
            return
        events = upcoming(self._eventful, costs, self._rules.wall, days, first)
        tickets = Numbered(LIVE_TICKETS)
        life = Life(state, events, self._rules, tickets, hand, self._rest())
        yield from life.advance(first, self.until_ms)

    def begin(self) -> Begun:
        """Return the account at the instant."""
        hand = InHand()
        changes = tuple(self.live_through(hand))
        part = AccountState(profile(self.account))
        for change in changes:
            part.apply(change)
        whole = self._rest().with_rest(part, self.until_ms)
        whole.version = 0
        return Begun(whole, changes, hand)

    def count(self, wanted: Wanted) -> int:
        """Return how many rows :meth:`deals` or :meth:`orders` would find."""
        return sum(self._chosen(wanted, closing=c).ticket.size for c in (False, True))

    def deals(self, wanted: Wanted) -> list[Deal]:
        """Return the wanted deals of the columns, unordered."""
        found = (rows.deals(self._chosen(wanted, closing=c), closing=c) for c in (False, True))
        return list(chain.from_iterable(found))

    def orders(self, wanted: Wanted) -> list[Order]:
        """Return the wanted orders of the columns, unordered."""
        found = (rows.orders(self._chosen(wanted, closing=c), closing=c) for c in (False, True))
        return list(chain.from_iterable(found))

    def _costs(self, held: Nights = _NO_NIGHTS) -> Pricing:
        return pricing(self.account, self._rules, held)

    def _rest(self) -> "_Columns":
        trades = self.trades
        first = int(trades.opened.min(initial=self.until_ms))
        held = nights(self._rules.wall, first - 1, self.until_ms)
        return _Columns(trades, self._costs(held), decimals(self.account.currency))

    def _cycles(self, robot: Robot) -> Plan:
        plan = cycles(robot, self.base, 0, begun(robot, self.until_ms))
        return traded(plan, self._rules.wall, self._rules.terms.trading_days)

    def _chosen(self, wanted: Wanted, *, closing: bool) -> Trades:
        trades = self.trades
        instants = trades.closed if closing else trades.opened
        keep = instants <= self.until_ms
        keep[keep] = wanted.in_time(instants[keep])
        if wanted.order is not None:
            keep &= trades.ticket + (2 if closing else 0) == wanted.order
        if wanted.position is not None:
            keep &= trades.ticket == wanted.position
        return trades.take(keep)


@dataclass(frozen=True)
class _Columns:
    """What the columns add to an account."""

    trades: Trades
    pricing: Pricing
    digits: int

    def with_rest(self, state: AccountState, at_ms: int) -> AccountState:
        """Return an account that holds also what the columns held at an instant."""
        trades = self.trades
        here = trades.opened <= at_ms
        over = trades.closed <= at_ms
        earned = trades.profit[over].sum() + trades.swap[over].sum()
        paid = trades.commission[here].sum() + trades.commission[over].sum()
        still = trades.take(here & ~over)
        still = replace(still, swap=collected(self.pricing, still, at_ms))
        held = (*state.positions.values(), *rows.positions(still))
        return AccountState(
            state.profile,
            positions=tuple(sorted(held, key=lambda p: (p.opened_ms, p.ticket))),
            orders=tuple(state.orders.values()),
            balance=round(state.balance + float(earned + paid), self.digits),
            credit=state.credit,
            version=state.version,
        )


def _split(account: Account, doings: Doings) -> tuple[Doings, Doings]:
    """Return what nothing can interfere with, and the rest."""
    plan, robot = doings.plan, doings.robot
    waits = (plan.sl > 0) | (plan.tp > 0)
    symbols: set[str] = set()
    if account.margin_mode == "netting":
        symbols = {order.symbol for order in doings.orders}
        symbols |= {SYMBOLS[index] for index in plan.symbol[waits].tolist()}
        waits = np.isin(plan.symbol, [SYMBOLS.index(symbol) for symbol in symbols])
    drawn_in = robot is not None and robot.symbol in symbols
    still = replace(
        doings, money=(), plan=plan.take(~waits), orders=(), robot=None if drawn_in else robot
    )
    eventful = replace(doings, plan=plan.take(waits), robot=robot if drawn_in else None)
    return still, eventful
