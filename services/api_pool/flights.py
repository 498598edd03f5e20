"""One turn for all who ask the same of an account at the same time."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable

from api_pool.turns import Taken
from mt5kit.domain.instants import now_ms


class Flights:
    """Turns on their way, by what was asked.

    A question is on its way once, however many ask it: that is what keeps a replica answering
    when far more is asked than terminals can look at. Who shares a turn takes what it gives only
    if that turns out young enough; for `fresh=1`, if the look was made after the request came.
    """

    def __init__(self) -> None:
        self._flights: dict[Hashable, asyncio.Task[Taken]] = {}

    async def share(
        self, asked: Hashable, max_age_ms: int, take: Callable[[], Awaitable[Taken]]
    ) -> Taken:
        """Take a turn, or share one that is being taken; raises as `take` does.

        Args:
            asked: What tells one question from another.
            max_age_ms: How old the answer may be, measured from now.
            take: Takes the turn.
        """
        wanted_ms = now_ms() - max_age_ms
        # One that has landed may stand there until the loop comes round; waiting for it would not
        # let the loop come round.
        while (flight := self._flights.get(asked)) is not None and not flight.done():
            # Who hangs up takes the turn from nobody else.
            taken = await asyncio.shield(flight)
            if taken.as_of_ms >= wanted_ms:
                return taken
        return await asyncio.shield(self._begun(asked, take))

    def _begun(
        self, asked: Hashable, take: Callable[[], Awaitable[Taken]]
    ) -> "asyncio.Task[Taken]":
        flight = asyncio.create_task(_taken(take))
        self._flights[asked] = flight
        flight.add_done_callback(lambda landed: self._landed(asked, landed))
        return flight

    def _landed(self, asked: Hashable, flight: "asyncio.Task[Taken]") -> None:
        if not flight.cancelled():
            # All who waited may have hung up; then nobody else takes the exception.
            flight.exception()
        if self._flights.get(asked) is flight:
            del self._flights[asked]


async def _taken(take: Callable[[], Awaitable[Taken]]) -> Taken:
    return await take()
