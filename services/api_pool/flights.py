"""One turn for all who ask the same of an account at the same time."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeAlias

from api_pool.turns import LookTurn, Taken
from mt5kit.domain.instants import now_ms

_Key: TypeAlias = tuple[str, int, str]


class Flights:
    """Looks on their way, by account and identity.

    Terminals coalesce what waits for them; this spares the way to another replica's terminal. Who
    shares a look takes it only if it turns out young enough, so `fresh=1` shares none.

    Args:
        take: Takes a turn.
    """

    def __init__(self, take: Callable[[LookTurn], Awaitable[Taken]]) -> None:
        self._take = take
        self._flights: dict[_Key, asyncio.Task[Taken]] = {}

    async def look(self, turn: LookTurn) -> Taken:
        """Take the turn, or share one that is being taken; raises as `take` does."""
        key = turn.account_id, turn.identity.login, turn.identity.server
        wanted_ms = now_ms() - turn.max_age_ms
        if turn.max_age_ms > 0 and key in self._flights:
            # Who hangs up takes the look from nobody else.
            taken = await asyncio.shield(self._flights[key])
            if taken.as_of_ms >= wanted_ms:
                return taken
        return await asyncio.shield(self._begun(key, turn))

    def _begun(self, key: _Key, turn: LookTurn) -> "asyncio.Task[Taken]":
        flight = asyncio.create_task(self._taken(turn))
        self._flights[key] = flight
        flight.add_done_callback(lambda landed: self._landed(key, landed))
        return flight

    async def _taken(self, turn: LookTurn) -> Taken:
        return await self._take(turn)

    def _landed(self, key: _Key, flight: "asyncio.Task[Taken]") -> None:
        if not flight.cancelled():
            # All who waited may have hung up; then nobody else takes the exception.
            flight.exception()
        if self._flights.get(key) is flight:
            del self._flights[key]
