"""Which part of a history is asked for."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from terminal_sim.market.clocks import WallClock
from terminal_sim.market.noise import Ints

# Whoever asks for seconds beyond these asks for all: nothing happens then.
_FIRST_S, _LAST_S = -(2**40), 2**40


@dataclass(frozen=True, slots=True)
class Wanted:
    """Filters of a history; None does not filter.

    Attributes:
        wall: The server's wall clock.
        first_s: Earliest reading of it, in seconds.
        last_s: Latest reading, inclusive.
        order: Ticket of an order.
        position: Identifier of a position.
    """

    wall: WallClock
    first_s: int | None = None
    last_s: int | None = None
    order: int | None = None
    position: int | None = None

    def bounds_ms(self) -> tuple[int, int]:
        """Return UTC bounds ``[first, stop)`` outside which nothing is wanted."""
        first = max(_FIRST_S if self.first_s is None else self.first_s, _FIRST_S)
        last = min(_LAST_S if self.last_s is None else self.last_s, _LAST_S)
        return self.wall.bounds_ms(first * 1000, (last + 1) * 1000)

    def in_time(self, utc_ms: Ints) -> npt.NDArray[np.bool_]:
        """Tell which UTC instants have a reading that is wanted."""
        keep: npt.NDArray[np.bool_] = np.ones(utc_ms.shape, np.bool_)
        if self.first_s is None and self.last_s is None:
            return keep
        seconds = self.wall.walls_ms(utc_ms) // 1000
        if self.first_s is not None:
            keep &= seconds >= self.first_s
        if self.last_s is not None:
            keep &= seconds <= self.last_s
        return keep
