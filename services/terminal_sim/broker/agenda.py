"""What a scenario plans for an account, as events in time order."""

import heapq
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import IntEnum
from itertools import count
from typing import NamedTuple

import numpy as np

from terminal_sim.broker import rows
from terminal_sim.broker.days import SATURDAY
from terminal_sim.broker.nights import weekdays
from terminal_sim.broker.plans import begun, cycles, pending, written
from terminal_sim.broker.plans import money as money_deals
from terminal_sim.broker.trades import NEVER, SYMBOLS, Plan, Pricing, Trades, priced
from terminal_sim.broker.values import Change, Deal, Order
from terminal_sim.market.clocks import WallClock
from terminal_sim.market.instruments import INSTRUMENTS
from terminal_sim.scenario.model import Account, Robot

# Robot cycles priced at a time: prices of the next minutes come in one vectorised call.
_AHEAD = 256


class Kind(IntEnum):
    """Kinds of events; of one instant the lower come first."""

    PAYS = 0
    CLOSES = 1
    OPENS = 2
    PLACES = 3


class Event(NamedTuple):
    """Something planned, or postponed.

    Attributes:
        at_ms: When, UTC epoch milliseconds.
        kind: What.
        ticket: Of the position, order or deal.
        change: What it does to an account in which nobody interfered.
        robot: A robot does it: it may be kept from it.
    """

    at_ms: int
    kind: Kind
    ticket: int
    change: Change
    robot: bool


@dataclass(frozen=True)
class Doings:
    """What a scenario plans for an account, or a part of that.

    Attributes:
        base: First ticket of the account.
        money: Deposit and credit.
        plan: Positions written down.
        orders: Pending orders, as placed.
        robot: Its robot.
    """

    base: int
    money: tuple[Deal, ...]
    plan: Plan
    orders: tuple[Order, ...]
    robot: Robot | None

    @classmethod
    def of(cls, account: Account, base: int, pricing: Pricing) -> "Doings":
        """Return everything planned for an account."""
        return cls(
            base,
            money_deals(account, base),
            written(account, base),
            pending(pricing.market, account, base),
            account.robot,
        )

    def first_ms(self) -> int:
        """Return when the first of it happens; ``NEVER`` when there is nothing."""
        instants = [deal.time_ms for deal in self.money]
        instants += [order.setup_ms for order in self.orders]
        instants += self.plan.opened.tolist()
        instants += [self.robot.starts_at.ms] if self.robot else []
        return min(instants, default=NEVER)


def traded(trades: Plan, wall: WallClock, days: str) -> Plan:
    """Return the robot cycles that fall on trading days, with both their deals."""
    if days == "all" or not trades.ticket.size:
        return trades
    if INSTRUMENTS[SYMBOLS[int(trades.symbol[0])]].folder == "Crypto":
        return trades
    closed = np.zeros(trades.ticket.size, np.bool_)
    for instants in (trades.opened, trades.closed):
        closed |= weekdays(wall.walls_ms(instants)) >= SATURDAY
    return trades.take(~closed)


def upcoming(
    doings: Doings, pricing: Pricing, wall: WallClock, days: str, since_ms: int
) -> Iterator[Event]:
    """Yield what is planned after a UTC instant, in time order; a robot never comes to an end."""
    paid = (Event(d.time_ms, Kind.PAYS, d.ticket, Change(deals=(d,)), False) for d in doings.money)
    placed = (
        Event(o.setup_ms, Kind.PLACES, o.ticket, Change(orders=(o,)), False) for o in doings.orders
    )
    late = doings.plan.take((doings.plan.opened > since_ms) | (doings.plan.closed > since_ms))
    events = [*paid, *placed, *_trades(priced(pricing, late), robot=False)]
    streams = [iter(sorted(event for event in events if event.at_ms > since_ms))]
    if doings.robot:
        streams.append(_cycles(doings, doings.robot, pricing, wall, days, since_ms))
    return heapq.merge(*streams, key=_order)


def _order(event: Event) -> tuple[int, Kind, int]:
    return event[:3]


def _cycles(
    doings: Doings, robot: Robot, pricing: Pricing, wall: WallClock, days: str, since_ms: int
) -> Iterator[Event]:
    first = begun(robot, since_ms - round(robot.hold_s * 1000))
    for start in count(first, _AHEAD):
        plan = traded(cycles(robot, doings.base, start, start + _AHEAD), wall, days)
        events = sorted(_trades(priced(pricing, plan), robot=True))
        yield from (event for event in events if event.at_ms > since_ms)


def _trades(trades: Trades, *, robot: bool) -> Iterator[Event]:
    # Swap is collected by whoever lives through the nights.
    trades = replace(trades, swap=np.zeros(trades.ticket.size))
    for position, deal, order in zip(
        rows.positions(trades),
        rows.deals(trades, closing=False),
        rows.orders(trades, closing=False),
        strict=True,
    ):
        change = Change(positions=(position,), deals=(deal,), done=(order,))
        yield Event(position.opened_ms, Kind.OPENS, position.ticket, change, robot)
    done = trades.take(trades.closed < NEVER)
    for deal, order in zip(
        rows.deals(done, closing=True), rows.orders(done, closing=True), strict=True
    ):
        change = Change(gone=(deal.position_id,), deals=(deal,), done=(order,))
        yield Event(deal.time_ms, Kind.CLOSES, deal.position_id, change, robot)
