"""Sources fed by our own poll: an account on a stream terminal that this replica leases."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import structlog

from mt5kit.errors import AccountNotFound, ServiceOverloaded, StaleToken, TerminalUnavailable
from mt5kit.state.redis import (
    LeaseKeeper,
    LiveStore,
    RedisFault,
    StateUnavailable,
    StreamPlacementStore,
)
from mt5kit.telemetry.stream_metrics import StreamMetrics
from mt5kit.terminal.protocol import StreamTerminal
from websocket_pool.close_codes import CloseCode
from websocket_pool.credentials import StoredAccount
from websocket_pool.diff import Status
from websocket_pool.feed import Feed, FeedParts, check_connected
from websocket_pool.line import Line
from websocket_pool.messages import Message, Place
from websocket_pool.publisher import Publisher
from websocket_pool.source import Ending, StreamOver, Watcher
from websocket_pool.stream import Stream

IDLE_S: Final = 30.0
"""A page that is reloaded comes back within this and finds its stream running."""

RESERVATION_TTL_S: Final = 45.0
"""A dead replica's terminals are free again after this: a few refreshes may fail before."""

REFRESH_S: Final = 10.0
"""Four refreshes fit into a reservation's life."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class LocalParts:
    """What the local sources of a replica share.

    Args:
        instance_id: This replica.
        terminals: Every stream terminal, by id.
        keeper: Holds the leases of some of them.
        placement: Which account has which terminal.
        live: Where other replicas read what is streamed here.
        feed: What the feeds share.
        metrics: Counts the accounts.
        idle_s: Seconds a stream goes on without watchers.
    """

    instance_id: str
    terminals: Mapping[str, StreamTerminal]
    keeper: LeaseKeeper
    placement: StreamPlacementStore
    live: LiveStore
    feed: FeedParts
    metrics: StreamMetrics
    idle_s: float = IDLE_S


class LocalSource:
    """One account, polled here. An `AccountSource`; starts on construction.

    Args:
        account: Whose, as it is stored now.
        terminal: The stream terminal reserved for it, leased by this replica.
        epoch: A token just issued for that lease.
        parts: What sources share.
    """

    def __init__(
        self, account: StoredAccount, terminal: StreamTerminal, epoch: int, parts: LocalParts
    ) -> None:
        account_id = account.account_id
        self.account_id = account_id
        self.terminal_id = terminal.terminal_id
        self._parts = parts
        self._epoch = epoch
        self._loop = asyncio.get_running_loop()
        self._stopping: asyncio.Future[Ending] = self._loop.create_future()
        self._stream = Stream(Line(account_id, epoch), self._loop)
        self._publisher = Publisher(
            parts.live, self._stream, epoch, terminal.terminal_id, parts.instance_id
        )
        self._stream.on_message = self._publisher.note
        self._feed = Feed(account, self._stream, terminal, self._token, parts.feed)
        self._ending: Ending | None = None
        self._idle: asyncio.TimerHandle | None = None
        self._wait_for_watchers()
        self._task = asyncio.create_task(self._run(), name=f"stream-{account_id}")

    @property
    def place(self) -> Place:
        """See `AccountSource.place`."""
        return self._stream.place

    @property
    def status(self) -> Status:
        """See `AccountSource.status`."""
        return self._stream.status

    @property
    def ending(self) -> Ending | None:
        """See `AccountSource.ending`."""
        return self._stopping.result() if self._stopping.done() else self._ending

    def attach(self, watcher: Watcher) -> None:
        """See `AccountSource.attach`."""
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None
        self._stream.watchers.add(watcher)

    def detach(self, watcher: Watcher) -> None:
        """See `AccountSource.detach`."""
        self._stream.watchers.discard(watcher)
        if not self._stream.watchers and self.ending is None:
            self._wait_for_watchers()

    def snapshot(self, *, conflated: bool = False) -> Message | None:
        """See `AccountSource.snapshot`."""
        return self._stream.snapshot(conflated=conflated)

    def replay(self, epoch: int, after_seq: int) -> Sequence[Message] | None:
        """See `AccountSource.replay`."""
        return self._stream.replay(epoch, after_seq)

    def reread(self) -> None:
        """Go on with what is stored now, or end."""
        self._feed.reread()

    def disconnect(self) -> None:
        """End it at the wish of the account's owner."""
        self.stop(CloseCode.ENDED, "the account was disconnected")

    def stop(self, code: CloseCode, reason: str) -> None:
        """See `AccountSource.stop`."""
        if not self._stopping.done():
            self._stopping.set_result((code, reason))

    async def closed(self) -> None:
        """See `AccountSource.closed`."""
        await asyncio.shield(self._task)

    async def _run(self) -> None:
        self._parts.metrics.accounts.inc()
        log.info("stream_started", account_id=self.account_id, terminal_id=self.terminal_id)
        try:
            self._ending = code, reason = await self._until_stopped()
            self._stream.end(code, reason)
            await self._give_back()
        finally:
            self._parts.metrics.accounts.dec()
        log.info("stream_stopped", account_id=self.account_id, code=int(code), reason=reason)

    async def _until_stopped(self) -> Ending:
        if self._stopping.done():
            return self._stopping.result()
        work: list[asyncio.Future[None]] = [
            asyncio.create_task(self._feed.run()),
            asyncio.create_task(self._feed.heed()),
            asyncio.create_task(self._publisher.run()),
            asyncio.create_task(self._keep_reservation()),
        ]
        try:
            awaited: list[asyncio.Future[Any]] = [*work, self._stopping]
            await asyncio.wait(awaited, return_when=asyncio.FIRST_COMPLETED)
            done = [task for task in work if task.done()]
        finally:
            for task in work:
                task.cancel()
            await asyncio.gather(*work, return_exceptions=True)
        if self._stopping.done():
            return self._stopping.result()
        return _ending_of(done[0])

    async def _keep_reservation(self) -> None:
        """Returns when the terminal has been given to another account."""
        while True:
            try:
                if not await self._parts.placement.refresh(
                    self.account_id, self.terminal_id, RESERVATION_TTL_S
                ):
                    return
            except (StateUnavailable, RedisFault) as failure:
                log.info("reservation_not_refreshed", error=failure.message)
            await asyncio.sleep(REFRESH_S)

    async def _give_back(self) -> None:
        try:
            await self._parts.live.drop(self.account_id, self._epoch, self.terminal_id)
        except StaleToken:
            log.info("stream_taken_over", account_id=self.account_id)
            return
        except (StateUnavailable, RedisFault) as failure:
            log.warning("live_state_left", error=failure.message)
        try:
            await self._parts.placement.free(self.account_id, self.terminal_id)
        except (StateUnavailable, RedisFault) as failure:
            log.warning("stream_terminal_left_reserved", error=failure.message)

    def _token(self) -> int:
        return self._parts.keeper.token_of(self.terminal_id)

    def _wait_for_watchers(self) -> None:
        self._idle = self._loop.call_later(
            self._parts.idle_s, self.stop, CloseCode.NORMAL, "nobody watches"
        )


def _ending_of(task: "asyncio.Future[None]") -> Ending:
    failure = task.exception()
    if failure is None:
        return CloseCode.RESTART, "the terminal serves another account"
    if isinstance(failure, StreamOver):
        return failure.code, failure.reason
    if isinstance(failure, StaleToken):
        return CloseCode.RESTART, "another replica has taken over"
    if isinstance(failure, AccountNotFound):
        return CloseCode.ENDED, "the account is gone"
    log.error("stream_failed", exc_info=failure)
    return CloseCode.INTERNAL, "a fault on our side"


class LocalSources:
    """Opens local sources. A `SourceOpener`."""

    def __init__(self, parts: LocalParts) -> None:
        self._parts = parts

    async def open(self, account_id: str) -> LocalSource:
        """See `SourceOpener.open`."""
        parts = self._parts
        await self._connected(account_id)
        terminal_id = await self._terminal_of(account_id)
        epoch = await parts.keeper.reissue(terminal_id)
        try:
            # Again: its owner may have disconnected it meanwhile.
            account = await self._connected(account_id)
        except (AccountNotFound, StreamOver):
            await parts.placement.free(account_id, terminal_id)
            raise
        # And the lease may have been lost, which only running streams are told.
        parts.keeper.token_of(terminal_id)
        return LocalSource(account, parts.terminals[terminal_id], epoch, parts)

    async def _connected(self, account_id: str) -> StoredAccount:
        account = await self._parts.feed.credentials.read(account_id)
        check_connected(account)
        return account

    def credentials_changed(self, account_id: str) -> None:
        """Credentials that were refused before may be tried again."""
        self._parts.feed.refused.pop(account_id, None)

    async def _terminal_of(self, account_id: str) -> str:
        """The account's reserved terminal, or one of ours if it has none."""
        parts = self._parts
        reserved = await parts.placement.where(account_id)
        if reserved is None:
            ours = [terminal for terminal in parts.keeper.held if terminal in parts.terminals]
            if not ours:
                raise ServiceOverloaded("this replica has no stream terminal", retry_after_s=5)
            return await parts.placement.reserve(account_id, ours, RESERVATION_TTL_S)
        if reserved not in parts.keeper.held:
            raise TerminalUnavailable("another replica streams this account", retry_after_s=5)
        return reserved
