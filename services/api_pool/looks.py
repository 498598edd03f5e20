"""What the replicas have seen, shared through the state store, and what to do when it is away."""

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeVar

import structlog

from mt5kit.errors import StaleToken
from mt5kit.state.redis import (
    CachedSnapshot,
    LiveState,
    LiveStore,
    PlacementStore,
    SnapshotCache,
    StateUnavailable,
)

log = structlog.get_logger(__name__)

T = TypeVar("T")

# A state store that hangs costs its timeout once in so long, not every read of every caller.
AWAY_S: Final = 2.0


@dataclass(slots=True)
class Looks:
    """Live states of streams, looks of API terminals, and which terminal an account is on.

    Args:
        live: Of the streams.
        cache: Of the API terminals.
        placements: Of the accounts.
        clock: Monotonic seconds.
    """

    live: LiveStore
    cache: SnapshotCache
    placements: PlacementStore
    clock: Callable[[], float] = time.monotonic
    _places: dict[str, str] = field(default_factory=dict)
    _away_until: float = float("-inf")

    async def live_of(self, account_id: str) -> LiveState | None:
        """Where the account's stream stands; None without one.

        Raises:
            StateUnavailable: The state store is away.
        """
        return await self._asked(lambda: self.live.read(account_id))

    async def cached_of(self, account_id: str) -> CachedSnapshot | None:
        """The last look of an API terminal.

        Raises:
            StateUnavailable: The state store is away.
        """
        return await self._asked(lambda: self.cache.get(account_id))

    async def keep(self, account_id: str, token: int, look: CachedSnapshot) -> None:
        """Cache a look; what cannot be cached makes the next read slower and this one no worse."""
        try:
            await self._asked(lambda: self.cache.put(account_id, token, look))
        except (StateUnavailable, StaleToken) as unkept:
            log.warning("look_not_cached", error=unkept.message)

    async def place(self, account_id: str, terminals: Sequence[str]) -> str:
        """The account's terminal, from memory while the state store is away.

        Owners keep serving without it (contracts §6): the lease and the fence still guard.

        Raises:
            ServiceOverloaded: No terminal has room, or the store is away and we never knew.
        """
        try:
            terminal_id = await self._asked(lambda: self.placements.place(account_id, terminals))
        except StateUnavailable:
            if account_id not in self._places:
                raise
            return self._places[account_id]
        self._places[account_id] = terminal_id
        return terminal_id

    async def forget(self, account_id: str) -> None:
        """Give up the account's place and its cached look.

        Raises:
            StateUnavailable: The state store is away.
        """
        self._places.pop(account_id, None)
        await self.placements.remove(account_id)
        await self.cache.drop(account_id)

    async def _asked(self, ask: Callable[[], Awaitable[T]]) -> T:
        if self.clock() < self._away_until:
            raise StateUnavailable("the state store does not answer", retry_after_s=AWAY_S)
        try:
            return await ask()
        except StateUnavailable:
            self._away_until = self.clock() + AWAY_S
            raise
