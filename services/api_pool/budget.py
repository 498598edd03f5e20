"""The login budget of broker servers, asked of the state store before each login."""

import time
from collections.abc import Callable

from api_pool.store_watch import StoreWatch
from mt5kit.state.redis import LoginBudgetStore, StateUnavailable


class ServerBudget:
    """A `LoginBudget`: so many logins a minute and server, of all replicas together.

    While the state store is away each replica keeps to its share of the budget, as many as there
    were replicas when it was last heard of; refreshes wait until it is back.

    Args:
        store: Counts for all replicas.
        per_minute: Logins a minute and server.
        watch: Knows whether the state store is away.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        store: LoginBudgetStore,
        per_minute: float,
        watch: StoreWatch,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._per_minute = per_minute
        self._watch = watch
        self._clock = clock
        self._next: dict[str, float] = {}
        self.replicas = 1

    async def take(self, server: str, *, spare: bool) -> float:
        """See `LoginBudget.take`."""
        try:
            return await self._watch.asked(
                lambda: self._store.take(server, self._per_minute, spare=spare)
            )
        except StateUnavailable as away:
            if spare:
                return away.retry_after_s or 1.0
            return self._local(server)

    def _local(self, server: str) -> float:
        now = self._clock()
        due = self._next.get(server, now)
        if due > now:
            return due - now
        self._next[server] = now + 60 / self._per_minute * self.replicas
        return 0.0
