"""From an account of a scenario to planned trades: its own positions and its robot's."""

import numpy as np

from terminal_sim.broker.trades import NEVER, SYMBOLS, Plan
from terminal_sim.market.noise import key, units
from terminal_sim.scenario.model import Account, Order, Position, Robot
from terminal_sim.scenario.moments import DAY_MS

# Every account has its own billion of ticket numbers, in these parts.
ACCOUNT_TICKETS = 1_000_000_000
DEPOSIT, CREDIT = 1, 2
_FIRST_POSITION, _FIRST_ORDER, _FIRST_CYCLE = 8, 400_000_000, 500_000_000
# A trade needs four numbers: opening order, opening deal, closing order, closing deal.
_TICKETS_A_TRADE = 4

# 2024-01-01: when an account without any positions is registered.
_QUIET_ACCOUNT = 1_704_067_200_000


def written(account: Account, base: int) -> Plan:
    """Return the positions written in the scenario; ``base`` is the account's first ticket."""
    held: tuple[Position, ...] = account.positions
    numbers = np.arange(len(held), dtype=np.int64)
    return Plan(
        ticket=base + _FIRST_POSITION + numbers * _TICKETS_A_TRADE,
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
        ticket=base + _FIRST_CYCLE + numbers * _TICKETS_A_TRADE,
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


def order_ticket(base: int, number: int) -> int:
    """Return the ticket of an account's n-th pending order."""
    return base + _FIRST_ORDER + number


def registered_ms(account: Account) -> int:
    """Return when the initial deposit was paid in (UTC epoch milliseconds)."""
    if account.registered_at:
        return account.registered_at.ms
    orders: tuple[Order, ...] = account.orders
    events = [position.opened_at.ms for position in account.positions]
    events += [order.placed_at.ms for order in orders]
    events += [account.robot.starts_at.ms] if account.robot else []
    return min(events) - DAY_MS if events else _QUIET_ACCOUNT
