"""Remembering for a moment that the state store is away."""

import time
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from mt5kit.state.redis import StateFull, StateUnavailable

T = TypeVar("T")

# A state store that hangs costs its timeout once in so long, not every request of every caller.
AWAY_S: Final = 2.0


class StoreWatch:
    """Shared by all who ask the state store on a request's behalf.

    Args:
        clock: Monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._away_until = float("-inf")

    async def asked(self, ask: Callable[[], Awaitable[T]]) -> T:
        """What the store answers.

        Raises:
            StateUnavailable: It is away, or was a moment ago.
        """
        if self._clock() < self._away_until:
            raise StateUnavailable("the state store does not answer", retry_after_s=AWAY_S)
        try:
            return await ask()
        except StateFull:
            # It answers; what can be read in it is read.
            raise
        except StateUnavailable:
            self._away_until = self._clock() + AWAY_S
            raise
