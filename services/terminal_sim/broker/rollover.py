"""The swap of a night, at midnight on the server's clock."""

from msgspec.structs import replace

from terminal_sim.broker.amounts import Prices
from terminal_sim.broker.days import DAY_MS, SATURDAY, instant_of, weekday
from terminal_sim.broker.state import AccountState
from terminal_sim.broker.values import Change
from terminal_sim.market.clocks import WallClock
from terminal_sim.market.tape import Tape

WEDNESDAY = 2
"""Its night counts three: a deal in currencies settles two working days later, so that it is the
night that crosses the weekend. ``swap_rollover3days`` of ``symbol_info()`` tells it."""


def rollovers_between(wall: WallClock, first_ms: int, last_ms: int) -> list[int]:
    """Return the UTC instants in ``(first_ms, last_ms]`` at which a day begins on a wall clock.

    A clock that is put back over midnight has one rollover, the first; one that is put forward
    over it, or over several, has one at that instant.
    """
    day = wall.latest_ms(first_ms) // DAY_MS
    last_day = wall.latest_ms(last_ms) // DAY_MS
    found = (instant_of(wall, number * DAY_MS) for number in range(day + 1, last_day + 1))
    return list(dict.fromkeys(found))


def nights(wall: WallClock, at_ms: int) -> int:
    """Return for how many nights a rollover charges: 3 after Wednesday, 0 on the weekend, else 1.

    ``at_ms`` is the UTC instant of the rollover, the night belongs to the day that ends.
    """
    day = weekday(wall.latest_ms(at_ms - 1))
    if day >= SATURDAY:
        return 0
    return 3 if day == WEDNESDAY else 1


def rollover(state: AccountState, tape: Tape, at_ms: int, wall: WallClock) -> Change:
    """Return what one rollover does: the swap of every position opened before it grows."""
    count = nights(wall, at_ms)
    if not count:
        return Change()
    prices = Prices.of(tape, at_ms, state.profile)
    return Change(
        positions=tuple(
            replace(position, swap=prices.money(position.swap + prices.swap(position, count)))
            for position in state.positions.values()
            if position.opened_ms < at_ms
        )
    )
