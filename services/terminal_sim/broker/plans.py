"""From an account of a scenario to what is planned: its positions, its robot's, its orders.

Whatever is planned has tickets of its own from the beginning, so that the past worked out at once
and the past lived through are the same.
"""

import numpy as np

from terminal_sim.broker.codes import ORDER_FILLING_RETURN, ORDER_STATE_PLACED
from terminal_sim.broker.trades import NEVER, SYMBOLS, Plan
from terminal_sim.broker.values import Deal, Order
from terminal_sim.catalogue import catalogue
from terminal_sim.market.instruments import INSTRUMENTS
from terminal_sim.market.money import decimals
from terminal_sim.market.noise import key, units
from terminal_sim.market.prices import Market
from terminal_sim.scenario import model
from terminal_sim.scenario.model import Account, Robot
from terminal_sim.scenario.moments import DAY_MS

# Every account has its own billion of ticket numbers, in these parts.
ACCOUNT_TICKETS = 1_000_000_000
_DEPOSIT, _CREDIT = 1, 2
_FIRST_POSITION, _FIRST_ORDER, _FIRST_CYCLE = 8, 400_000_000, 500_000_000
TICKETS_A_TRADE = 8
"""A trade's numbers, from its ticket on: opening order, opening deal, closing order, closing deal,
order and deal when it closes part of another position; the rest is spare."""
LIVE_TICKETS = 10**15
"""What happens unplanned has tickets from here on."""
EXPERT, CLIENT = 3, 0
"""``*_REASON_EXPERT`` of whatever has a magic number, ``*_REASON_CLIENT`` of the rest."""

# A pending order without a price stands this far from the market.
_AWAY = 0.02
# 2024-01-01: when an account without any positions is registered.
_QUIET_ACCOUNT = 1_704_067_200_000


def written(account: Account, base: int) -> Plan:
    """Return the positions written in the scenario; ``base`` is the account's first ticket."""
    held = account.positions
    numbers = np.arange(len(held), dtype=np.int64)
    return Plan(
        ticket=base + _FIRST_POSITION + numbers * TICKETS_A_TRADE,
        symbol=np.array([SYMBOLS.index(p.symbol) for p in held], np.int64),
        sign=np.array([1 if p.type == "buy" else -1 for p in held], np.int64),
        volume=np.array([p.volume for p in held], np.float64),
        opened=np.array([p.opened_at.ms for p in held], np.int64),
        closed=np.array([p.closed_at.ms if p.closed_at else NEVER for p in held], np.int64),
        price=np.array([np.nan if p.price_open is None else p.price_open for p in held]),
        sl=np.array([p.sl for p in held], np.float64),
        tp=np.array([p.tp for p in held], np.float64),
        magic=np.array([p.magic for p in held], np.int64),
        comment=np.array([p.comment for p in held], np.object_),
    )


def cycles(robot: Robot, base: int, first: int, stop: int) -> Plan:
    """Return cycles ``first`` to ``stop`` of a robot; ``base`` is the account's first ticket."""
    numbers = np.arange(first, stop, dtype=np.int64)
    count = numbers.size
    opened = robot.starts_at.ms + np.rint(numbers * (robot.period_s * 1000)).astype(np.int64)
    luck = units(key(base, robot.symbol, "robot"), numbers)
    return Plan(
        ticket=base + _FIRST_CYCLE + numbers * TICKETS_A_TRADE,
        symbol=np.full(count, SYMBOLS.index(robot.symbol), np.int64),
        sign=np.where(luck < 0.5, 1, -1).astype(np.int64),  # noqa: PLR2004 - a fair coin
        volume=np.full(count, robot.volume),
        opened=opened,
        closed=opened + round(robot.hold_s * 1000),
        price=np.full(count, np.nan),
        sl=np.zeros(count),
        tp=np.zeros(count),
        magic=np.ones(count, np.int64),
        comment=np.full(count, "robot", np.object_),
    )


def begun(robot: Robot, now_ms: int) -> int:
    """Return how many cycles a robot has begun at a UTC instant."""
    passed = now_ms - robot.starts_at.ms
    if passed < 0:
        return 0
    count = int(passed / (robot.period_s * 1000)) + 1
    # The start of a cycle is rounded to milliseconds, so the division may be off by one.
    start = robot.starts_at.ms + round((count - 1) * (robot.period_s * 1000))
    later = robot.starts_at.ms + round(count * (robot.period_s * 1000))
    return count - (start > now_ms) + (later <= now_ms)


def is_planned(ticket: int) -> bool:
    """Tell whether a ticket belongs to something planned."""
    return ticket < LIVE_TICKETS


def pending(market: Market, account: Account, base: int) -> tuple[Order, ...]:
    """Return the pending orders written in the scenario, as they were placed."""
    return tuple(
        Order(
            ticket=base + _FIRST_ORDER + number * TICKETS_A_TRADE,
            symbol=order.symbol,
            type=catalogue().constants[f"ORDER_TYPE_{order.type.upper()}"],
            state=ORDER_STATE_PLACED,
            volume_initial=order.volume,
            volume_current=order.volume,
            price_open=_limit(market, order) if order.price is None else order.price,
            price_current=0.0,
            sl=order.sl,
            tp=order.tp,
            setup_ms=order.placed_at.ms,
            done_ms=0,
            expires_ms=0,
            type_time=0,
            type_filling=ORDER_FILLING_RETURN,
            magic=order.magic,
            reason=EXPERT if order.magic else CLIENT,
            position_id=0,
            comment=order.comment,
        )
        for number, order in enumerate(account.orders)
    )


def money(account: Account, base: int) -> tuple[Deal, ...]:
    """Return the deals that only move money: the initial deposit and the credit."""
    parts = (
        (_DEPOSIT, "DEAL_TYPE_BALANCE", account.balance, "Deposit"),
        (_CREDIT, "DEAL_TYPE_CREDIT", account.credit, "Credit"),
    )
    at_ms, digits = registered_ms(account), decimals(account.currency)
    return tuple(
        money_deal(base + number, kind, at_ms, round(amount, digits), CLIENT, comment)
        for number, kind, amount, comment in parts
        if round(amount, digits)
    )


def money_deal(
    ticket: int, kind: str, at_ms: int, amount: float, reason: int, comment: str
) -> Deal:
    """Return a deal of a ``DEAL_TYPE_*`` that only moves money."""
    return Deal(
        ticket=ticket,
        order=0,
        position_id=0,
        symbol="",
        type=catalogue().constants[kind],
        entry=0,
        time_ms=at_ms,
        volume=0.0,
        price=0.0,
        commission=0.0,
        swap=0.0,
        profit=amount,
        fee=0.0,
        magic=0,
        reason=reason,
        comment=comment,
    )


def registered_ms(account: Account) -> int:
    """Return when the initial deposit was paid in (UTC epoch milliseconds)."""
    if account.registered_at:
        return account.registered_at.ms
    events = [position.opened_at.ms for position in account.positions]
    events += [order.placed_at.ms for order in account.orders]
    events += [account.robot.starts_at.ms] if account.robot else []
    return min(events) - DAY_MS if events else _QUIET_ACCOUNT


def _limit(market: Market, order: model.Order) -> float:
    """Return a price away from the market of the moment the order was placed."""
    bid = float(market.quotes(order.symbol, np.array([order.placed_at.ms]))["bid"][0])
    below = order.type in {"buy_limit", "sell_stop"}
    return round(bid * (1 - _AWAY if below else 1 + _AWAY), INSTRUMENTS[order.symbol].digits)
