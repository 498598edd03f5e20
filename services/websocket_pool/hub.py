"""Every account that is streamed here: one stream each, however many sockets."""

import asyncio
from collections.abc import Callable
from typing import Final

import structlog

from mt5kit.domain.accounts import AccountState
from mt5kit.errors import AccountNotFound, ServiceOverloaded
from mt5kit.state.redis import Control, ControlChannel, Lease, StateUnavailable
from websocket_pool.account_stream import AccountStream
from websocket_pool.channel import Channel
from websocket_pool.close_codes import CloseCode
from websocket_pool.source import Watcher
from websocket_pool.stream_parts import StreamParts

SCAN_S: Final = 1.0
"""Between two looks at the reservations of our terminals; a call for a stream comes at once."""

_ATTEMPTS: Final = 3
"""A stream may end between its beginning and its use; more often in a row means overload."""

log = structlog.get_logger(__name__)


class Hub:
    """Begins a stream for the first who asks and shares it with the rest."""

    def __init__(self, parts: StreamParts) -> None:
        self._parts = parts
        self._streams: dict[str, AccountStream] = {}
        self._ending: set[asyncio.Task[None]] = set()
        self._scan = asyncio.Event()
        self._closed = False

    @property
    def streams(self) -> list[AccountStream]:
        """What is streamed here, polled or followed."""
        return [stream for stream in self._streams.values() if not stream.over]

    async def channel(
        self, account_id: str, user_id: str, since: tuple[int, int] | None = None
    ) -> Channel:
        """What a socket of an account watches; it has come at least as far as `since`.

        Args:
            account_id: The account.
            user_id: Whose it was when the socket's right was given.
            since: (epoch, seq) that its client was told.

        Raises:
            AccountNotFound: This user has no such account.
            StreamOver: Its owner has disconnected it.
            Unavailable: It cannot be streamed here now.
        """
        for _ in range(_ATTEMPTS):
            if self._closed:
                break
            stream = self._stream(account_id)
            await stream.ready()
            if not await stream.belongs_to(user_id):
                if stream.over:
                    continue
                raise AccountNotFound("no such account")
            if since is not None:
                await stream.reach(*since)
            if not stream.over:
                return stream.channel
        raise ServiceOverloaded("this replica is stopping", retry_after_s=1)

    def gained(self, lease: Lease) -> None:
        """A terminal is ours now; whoever is reserved on it may be waiting."""
        self._parts.owner.metrics.lease_events.labels("gained").inc()
        # It may have been lost before its leaving had begun.
        self._parts.leaving.discard(lease.terminal_id)
        self._parts.terminals.gained(lease)
        for stream in self.streams:
            stream.poke()
        self._scan.set()

    async def losing(self, terminal_id: str) -> None:
        """Hand over what is streamed from a terminal that is about to be given away."""
        self._parts.leaving.add(terminal_id)
        for stream in self._on(terminal_id):
            await stream.hand_over()

    def lost(self, terminal_id: str) -> None:
        """A terminal is not ours any more."""
        self._parts.owner.metrics.lease_events.labels("lost").inc()
        self._parts.leaving.discard(terminal_id)
        for stream in self._on(terminal_id):
            stream.lost()
        self._parts.terminals.lost(terminal_id)

    async def obey(self, control: ControlChannel) -> None:
        """Carry out the API pool's orders until cancelled; what was missed is read in the store."""
        async for account_id, order in control.listen(self._reread_all):
            self._obey(account_id, order)

    async def hear(self) -> None:
        """Take what other replicas relay, until cancelled."""
        async for relayed in self._parts.live.listen(self._parts.instance_id, self._stands):
            if relayed.kind == "wanted":
                self._wanted(relayed.account_id)
            elif (stream := self._streams.get(relayed.account_id)) is not None:
                stream.relayed(relayed)

    async def watch_reservations(self) -> None:
        """Begin what others want of our terminals, until cancelled."""
        while True:
            try:
                await self.scan()
            except StateUnavailable as away:
                log.info("reservations_unread", error=away.message)
            try:
                async with asyncio.timeout(SCAN_S):
                    await self._scan.wait()
            except TimeoutError:
                continue
            self._scan.clear()

    async def scan(self) -> None:
        """Begin to poll the accounts of our terminals that somebody follows.

        Raises:
            StateUnavailable: Redis is away.
        """
        polled = self.polled()
        waiting = [
            terminal_id
            for terminal_id in self._parts.keeper.held
            if self._parts.ours(terminal_id) and terminal_id not in polled
        ]
        occupants = await self._parts.owner.placement.occupants(waiting)
        for account_id in occupants.values():
            stream = self._streams.get(account_id)
            if stream is not None and not stream.over:
                stream.poke()
            elif await self._parts.live.followers(account_id):
                self._wanted(account_id)

    def serves(self, account_id: str) -> bool:
        """Whether an account is streamed here, polled or followed."""
        stream = self._streams.get(account_id)
        return stream is not None and not stream.over

    def polled(self) -> frozenset[str]:
        """Terminals of ours on which an account is polled."""
        return frozenset(stream.owner.terminal_id for stream in self.streams if stream.owner)

    def well(self, terminal_id: str) -> bool:
        """Whether a terminal of ours answers whoever polls it, as far as anybody does."""
        return all(
            stream.owner is None
            or stream.owner.status.state is not AccountState.TERMINAL_UNAVAILABLE
            for stream in self._on(terminal_id)
        )

    def watchers(self) -> list[Watcher]:
        """Every socket here."""
        return [watcher for stream in self.streams for watcher in stream.channel.watchers]

    def refuse(self) -> None:
        """Begin no more streams, and let no more sockets in."""
        self._closed = True

    async def aclose(self) -> None:
        """End every stream here."""
        self.refuse()
        for stream in self._streams.values():
            stream.stop(CloseCode.RESTART, "this replica restarts")
        while self._ending:
            await asyncio.wait(set(self._ending))

    def _stream(self, account_id: str) -> AccountStream:
        known = self._streams.get(account_id)
        if known is None or known.over:
            known = self._streams[account_id] = AccountStream(account_id, self._parts, known)
            forget = asyncio.create_task(self._forget(known))
            self._ending.add(forget)
            forget.add_done_callback(self._ending.discard)
        return known

    async def _forget(self, stream: AccountStream) -> None:
        await stream.closed()
        if self._streams.get(stream.account_id) is stream:
            del self._streams[stream.account_id]

    def _wanted(self, account_id: str) -> None:
        if not self._closed:
            self._stream(account_id).poke()

    def _on(self, terminal_id: str) -> list[AccountStream]:
        return [
            stream
            for stream in self._streams.values()
            if stream.owner is not None and stream.owner.terminal_id == terminal_id
        ]

    def _stands(self) -> None:
        """What was relayed before went unheard, and Redis may have started anew."""
        for stream in self.streams:
            stream.poke()
            if stream.owner is not None:
                stream.owner.refresh()
        self._scan.set()

    def _obey(self, account_id: str, order: Control) -> None:
        log.info("stream_control", account_id=account_id, control=order.value)
        if order is Control.CREDENTIALS:
            self._parts.owner.feed.refused.pop(account_id, None)
            self._tell(account_id, AccountStream.reread)
        else:
            self._tell(account_id, AccountStream.disconnect)

    def _reread_all(self) -> None:
        for stream in self.streams:
            stream.reread()

    def _tell(self, account_id: str, order: Callable[[AccountStream], None]) -> None:
        stream = self._streams.get(account_id)
        if stream is not None:
            order(stream)
