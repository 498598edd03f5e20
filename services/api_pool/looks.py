"""What has been seen of accounts: in this process, and shared through the state store."""

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import structlog

from api_pool.memory import Kept, LookMemory
from api_pool.seen import Seen
from api_pool.store_watch import StoreWatch
from mt5kit.domain.brokers import Brokers
from mt5kit.domain.instants import now_ms
from mt5kit.domain.snapshots import Snapshot
from mt5kit.errors import StaleToken
from mt5kit.service.background import Background
from mt5kit.state.redis import (
    CachedSnapshot,
    LiveState,
    LiveStore,
    SnapshotCache,
    StateUnavailable,
)

if TYPE_CHECKING:
    from api_pool.answers import Source

log = structlog.get_logger(__name__)

# A poller looks at least once a second; beyond two it is gone, and a terminal turn is surer.
NEXT_LOOK_TIMEOUT_S: Final = 2.0
NEXT_LOOK_STEP_S: Final = 0.05


class Looks:
    """Live states of streams and looks of API terminals, in memory and in the state store.

    Args:
        instance_id: This replica.
        live: Of the streams.
        cache: Of the API terminals.
        brokers: Clocks of the servers.
        background: Writes what nobody waits for.
        watch: Knows whether the state store is away.
        clock: Monotonic seconds.
    """

    def __init__(  # noqa: PLR0913 - a composition root's list of parts
        self,
        *,
        instance_id: str,
        live: LiveStore,
        cache: SnapshotCache,
        brokers: Brokers,
        background: Background,
        watch: StoreWatch,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._instance_id = instance_id
        self._live = live
        self._cache = cache
        self._brokers = brokers
        self._background = background
        self._watch = watch
        self._clock = clock
        self._memory = LookMemory(clock=clock)
        self._unwritten: dict[str, tuple[int, Kept]] = {}

    async def kept(self, account_id: str, max_age_ms: int) -> Kept | None:
        """The freshest look that is at most `max_age_ms` old, None without one.

        For a streamed account an age of 0 waits for the poller's next look (contracts §1).
        """
        asked_ms = now_ms()
        known = self._memory.current(account_id)
        if known is not None and max_age_ms and known.as_of_ms >= asked_ms - max_age_ms:
            return known
        try:
            if max_age_ms == 0:
                return await self._next_look(account_id, asked_ms)
            known = await self._watch.asked(lambda: self._shared(account_id))
        except StateUnavailable as away:
            log.warning("read_without_state_store", error=away.message)
            known = self._memory.last(account_id)
        if known is not None and max_age_ms and known.as_of_ms >= asked_ms - max_age_ms:
            return known
        return None

    def looked(self, account_id: str, terminal_id: str, token: int, snapshot: Snapshot) -> None:
        """Keep what a terminal of ours has shown, here at once and in the state store soon."""
        kept = self.of(account_id, terminal_id, snapshot)
        self._memory.put(account_id, kept)
        writing = account_id in self._unwritten
        self._unwritten[account_id] = (token, kept)
        if not writing:
            self._background.spawn(f"look-{account_id}", self._write(account_id))

    def of(self, account_id: str, terminal_id: str, snapshot: Snapshot) -> Kept:
        """A look of a terminal of ours in the form in which it is kept."""
        known = self._memory.last(account_id)
        if (
            known is not None
            and known.terminal_id == terminal_id
            and known.as_of_ms == snapshot.seen_ms
            and known.seen.identity == snapshot.identity
        ):
            return known
        seen = Seen.of(snapshot.in_utc(self._brokers.clock_of(snapshot.account.server)))
        return Kept(seen, terminal_id, self._instance_id, "cache", snapshot.seen_ms)

    def heard(self, account_id: str, kept: Kept) -> None:
        """Keep what another replica's terminal has shown; its owner shares it."""
        self._memory.put(account_id, kept)

    async def share(self, account_id: str, token: int, kept: Kept) -> None:
        """Put a look into the state store; unshared, it makes later reads slower, not worse."""
        look = CachedSnapshot(kept.as_of_ms, kept.terminal_id, kept.instance_id, kept.seen.payload)
        try:
            await self._watch.asked(lambda: self._cache.put(account_id, token, look))
        except (StateUnavailable, StaleToken) as unkept:
            log.info("look_not_cached", error=unkept.message)

    def drop(self, account_id: str) -> None:
        """Forget what this process remembers of the account."""
        self._memory.drop(account_id)
        self._unwritten.pop(account_id, None)

    async def forget(self, account_id: str) -> None:
        """Forget the account's look, here and in the state store.

        Raises:
            StateUnavailable: The state store is away.
        """
        self.drop(account_id)
        await self._cache.drop(account_id)

    async def _write(self, account_id: str) -> None:
        """Write the newest look; those that came while the last was written are skipped."""
        try:
            while account_id in self._unwritten:
                token, kept = self._unwritten[account_id]
                await self.share(account_id, token, kept)
                if self._unwritten.get(account_id) == (token, kept):
                    del self._unwritten[account_id]
        except BaseException:
            # Left here it would keep every later look from being written.
            self._unwritten.pop(account_id, None)
            raise

    async def _shared(self, account_id: str) -> Kept | None:
        live, cached = await asyncio.gather(
            self._live.read(account_id), self._cache.get(account_id)
        )
        if live is None and cached is None:
            self._memory.drop(account_id)
            return None
        if live is not None and (cached is None or live.as_of_ms >= cached.as_of_ms):
            return self._remember(account_id, live)
        return self._remember(account_id, cached) if cached is not None else None

    def _remember(self, account_id: str, stored: LiveState | CachedSnapshot) -> Kept:
        source: Source = "stream" if isinstance(stored, LiveState) else "cache"
        known = self._memory.last(account_id)
        if known is not None and known.seen.payload == stored.payload and known.source == source:
            kept = known.true_at(stored.as_of_ms)
        else:
            seen = Seen.of_payload(stored.payload)
            kept = Kept(seen, stored.terminal_id, stored.instance_id, source, stored.as_of_ms)
        return self._memory.put(account_id, kept)

    async def _next_look(self, account_id: str, after_ms: int) -> Kept | None:
        deadline = self._clock() + NEXT_LOOK_TIMEOUT_S
        while self._clock() < deadline:
            live = await self._watch.asked(lambda: self._live.read(account_id))
            if live is None:
                return None
            if live.as_of_ms >= after_ms:
                return self._remember(account_id, live)
            await asyncio.sleep(NEXT_LOOK_STEP_S)
        return None
