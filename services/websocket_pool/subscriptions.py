"""The record of this replica's sockets that operators and dashboards read: one row for each.

Nothing here is on a socket's way: what opens and closes is noted in memory and written by one task.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol
from uuid import UUID, uuid4

import structlog

from mt5kit.errors import AccountNotFound, InternalFault, Mt5SwarmError
from mt5kit.service.background import Background
from mt5kit.state.postgres import ClosedSocket, OpenSocket
from websocket_pool.close_codes import CloseCode

log = structlog.get_logger(__name__)

FLUSH_S: Final = 1.0
"""As fresh as a dashboard needs it, and a burst of reconnects is few transactions."""

BEAT_S: Final = 5.0
"""Rows that are silent for `registration.SILENT_AFTER_S` are ended: one beat may be late."""

KEEP_DAYS: Final = 30
"""Closed sockets are kept as long as the log of requests."""

FORGET_S: Final = 3600.0
"""Each time and replica 50,000 rows at most: more than an hour of reconnects makes."""

MOST_ENDED: Final = 10_000
"""Closed sockets to remember while Postgres is away: as many as five full replicas have."""

CLOSE_LIMIT_S: Final = 3.0
"""A replica that stops waits no longer; what it left open is ended by others within 15 s."""


class Recorder(Protocol):
    """What the book needs of `SubscriptionStore`."""

    async def record(
        self,
        account_id: str,
        instance_id: str,
        opened: Sequence[OpenSocket],
        closed: Sequence[ClosedSocket] = (),
    ) -> None:
        """Write what has opened and closed on an account; see `SubscriptionStore.record`."""

    async def beat(self, instance_id: str, sockets: Sequence[UUID]) -> tuple[UUID, ...]:
        """Renew these; those that have no active row. See `SubscriptionStore.beat`."""

    async def forget(self, keep_days: int) -> int:
        """Remove rows of sockets that closed longer ago; how many."""


@dataclass(slots=True, eq=False)
class Subscription:
    """One socket on one account. Made by `SubscriptionBook.opened`; give it back to `closed`."""

    account_id: str
    opened_s: float
    socket: UUID = field(default_factory=uuid4)
    closed_s: float | None = None
    code: int = 0
    told: bool = False


class SubscriptionBook:
    """Writes which sockets are open, off their way.

    While Postgres is away, open sockets are remembered (they are as many as the replica serves)
    and the last 10,000 that closed. Of those before, the rows that exist are ended by any replica
    as silent, without a close code; the others are never made. When Postgres returns, open
    sockets whose rows were ended meanwhile are made active again.

    Args:
        store: Where the rows are.
        instance_id: This replica.
        clock: Monotonic seconds; the running loop's unless given.
    """

    def __init__(
        self, store: Recorder, instance_id: str, clock: Callable[[], float] | None = None
    ) -> None:
        self._store = store
        self._instance_id = instance_id
        self._clock = clock or asyncio.get_running_loop().time
        self._open: dict[UUID, Subscription] = {}
        # Open ones without a row, and closed ones whose row does not say so.
        self._untold: dict[UUID, Subscription] = {}
        self._ended: dict[UUID, Subscription] = {}
        self._forgotten = 0
        self._beat_s = self._clock()
        self._background = Background()

    def start(self) -> None:
        """Write in the background from here on."""
        self._background.every("subscriptions", FLUSH_S, self.flush)
        self._background.every("old-subscriptions", FORGET_S, self.forget)

    def opened(self, account_id: str) -> Subscription:
        """Note that a socket has opened. Waits for nothing and does not fail."""
        subscription = Subscription(account_id, self._clock())
        self._open[subscription.socket] = subscription
        self._untold[subscription.socket] = subscription
        return subscription

    def closed(self, subscription: Subscription, code: int) -> None:
        """Note that it has closed; only the first time counts. Waits for nothing, does not fail."""
        if self._open.pop(subscription.socket, None) is None:
            return
        subscription.closed_s, subscription.code = self._clock(), int(code)
        self._untold.pop(subscription.socket, None)
        self._ended[subscription.socket] = subscription
        if len(self._ended) > MOST_ENDED:
            del self._ended[next(iter(self._ended))]
            self._forgotten += 1

    async def flush(self) -> None:
        """Write all that is not written, one transaction for each account; beat if it is time.

        Raises:
            DatabaseUnavailable: Postgres is away; what is not written stays noted.
        """
        accounts: defaultdict[str, list[Subscription]] = defaultdict(list)
        for subscription in (*self._untold.values(), *self._ended.values()):
            accounts[subscription.account_id].append(subscription)
        for account_id, news in accounts.items():
            # Writing up after an outage may take longer than rows may be silent.
            await self._beat_if_due()
            await self._write(account_id, news)
        await self._beat_if_due()
        if self._forgotten:
            log.warning("closed_sockets_not_recorded", count=self._forgotten)
            self._forgotten = 0

    async def forget(self) -> None:
        """Remove what nobody asks for any more.

        Raises:
            DatabaseUnavailable: Postgres is away.
        """
        if gone := await self._store.forget(KEEP_DAYS):
            log.info("old_subscriptions_removed", removed=gone)

    async def close(self) -> None:
        """Write up, and that whatever is open here yet is cut with the replica."""
        await self._background.aclose()
        for subscription in list(self._open.values()):
            self.closed(subscription, CloseCode.RESTART)
        try:
            async with asyncio.timeout(CLOSE_LIMIT_S):
                await self.flush()
        except (Mt5SwarmError, TimeoutError) as left:
            log.warning("subscriptions_left_open", error=repr(left))

    async def _write(self, account_id: str, news: list[Subscription]) -> None:
        now_s = self._clock()
        fresh = [one for one in news if not one.told]
        # As they are now: one that closes while this is written is written again.
        over = [(one, one.closed_s) for one in news if one.closed_s is not None]
        try:
            await self._store.record(
                account_id,
                self._instance_id,
                [OpenSocket(one.socket, now_s - one.opened_s) for one in fresh],
                [ClosedSocket(one.socket, now_s - at_s, one.code) for one, at_s in over],
            )
        except AccountNotFound:
            log.info("socket_of_erased_account", account_id=account_id)
        except InternalFault:
            # At once it would be refused again. What is open is, when its beat finds no row.
            log.exception("subscriptions_not_recorded", account_id=account_id, count=len(news))
            self._told(fresh)
        else:
            self._told(fresh)
        for one in fresh:
            self._untold.pop(one.socket, None)
        for one, _ in over:
            self._ended.pop(one.socket, None)

    @staticmethod
    def _told(fresh: list[Subscription]) -> None:
        for one in fresh:
            one.told = True

    async def _beat_if_due(self) -> None:
        if self._clock() - self._beat_s < BEAT_S:
            return
        beaten = [one.socket for one in self._open.values() if one.told]
        missing = await self._store.beat(self._instance_id, beaten)
        self._beat_s = self._clock()
        for socket in missing:
            # It may have closed meanwhile.
            if subscription := self._open.get(socket):
                subscription.told = False
                self._untold[socket] = subscription
        if missing:
            log.info("subscriptions_revived", count=len(missing))
