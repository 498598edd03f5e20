"""One account as this replica serves it: polled here, or heard of from whoever polls it."""

import asyncio
from typing import Final

import structlog

from mt5kit.domain.instants import now_ms
from mt5kit.errors import (
    AccountNotFound,
    ServiceOverloaded,
    StaleToken,
    TerminalMoved,
    Unavailable,
)
from mt5kit.state.redis import (
    RedisFault,
    Relayed,
    StateUnavailable,
)
from websocket_pool.channel import Channel
from websocket_pool.close_codes import CloseCode
from websocket_pool.feed import check_connected
from websocket_pool.follower import Follower
from websocket_pool.owner import (
    RESERVATION_TTL_S,
    Left,
    Owner,
    ending_of,
)
from websocket_pool.polling import Polling
from websocket_pool.reserving import instead_of
from websocket_pool.source import Ending, StreamOver
from websocket_pool.stream_parts import StreamParts

LINGER_S: Final = 5.0
"""Whoever was let in attaches within this; a page that is reloaded mostly comes back, too."""

ASK_AFTER_S: Final = 2.5
"""An owner writes at least every 1.5 s; one that is silent for longer may not know it is wanted."""

DEAF_AFTER_S: Final = 5.0
"""Sockets are told when nothing has been heard for so long."""

REACH_S: Final = 2.0
"""An owner publishes again half a second after Redis is back."""

REACH_STEP_S: Final = 0.1
"""Between two looks at what was published."""

CLOCKS_DIFFER_US: Final = 60_000_000
"""Epochs are times of Redis' clock in µs; ours may be as far behind."""

RETRY_S: Final = 0.5
"""Between attempts while something we need is away."""

log = structlog.get_logger(__name__)


class AccountStream:
    """Keeps one account's channel fed until nobody needs it. Starts on construction.

    Args:
        account_id: Whose.
        parts: What accounts share.
        previous: The account's stream before this one, whose end is waited for.

    Attributes:
        channel: What sockets watch.
        row_id: `accounts.id`; None before it is known.
        user_id: Whose it is; None before that is known.
    """

    def __init__(
        self, account_id: str, parts: StreamParts, previous: "AccountStream | None" = None
    ) -> None:
        self.account_id = account_id
        self.channel = Channel(account_id, parts.owner.metrics)
        self.row_id: int | None = None
        self.user_id: str | None = None
        self._parts = parts
        self._previous = previous
        self._reread = False
        self._waits: str | None = None
        self._polling = Polling(account_id, self.channel, self.watched, parts)
        self._expected_s = self._woken_s = -LINGER_S
        self._follower = Follower(self.channel, parts.live, parts.instance_id)
        loop = asyncio.get_running_loop()
        self._ready: asyncio.Future[None] = loop.create_future()
        # Nobody may be waiting for it: a stream is also begun for other replicas' sockets.
        self._ready.add_done_callback(lambda ready: ready.cancelled() or ready.exception())
        self._stopping: asyncio.Future[Ending] = loop.create_future()
        self._task = asyncio.create_task(self._run(), name=f"stream-{account_id}")

    @property
    def owner(self) -> Owner | None:
        """Our own poll; None while another replica polls."""
        return self._polling.owner

    @property
    def over(self) -> bool:
        """Whether it has ended, or is about to."""
        return self._stopping.done() or self.channel.ending is not None or self._task.done()

    def watched(self) -> bool:
        """Whether a socket watches, or is about to."""
        expected = asyncio.get_running_loop().time() < self._expected_s + LINGER_S
        return bool(self.channel.watchers) or (expected and not self.channel.attached)

    async def ready(self) -> None:
        """Until a socket can be let in; it is waited for then, for a moment.

        Raises:
            AccountNotFound: There is no such account.
            StreamOver: Its owner has disconnected it.
            Unavailable: It cannot be streamed now.
        """
        await asyncio.shield(self._ready)
        self._expected_s = asyncio.get_running_loop().time()
        self.channel.attached = False

    async def reach(self, epoch: int, seq: int) -> None:
        """Until the line has come as far as a client says it was told.

        A follower may not have heard yet what a client was told elsewhere, above all when Redis was
        away: it must not take the client back. An epoch of the future is nobody's.

        Raises:
            ServiceOverloaded: It has not heard in time.
        """
        if epoch > now_ms() * 1000 + CLOCKS_DIFFER_US:
            return
        for _ in range(round(REACH_S / REACH_STEP_S)):
            if self._has_reached(epoch, seq):
                return
            self._wake()
            await asyncio.sleep(REACH_STEP_S)
        raise ServiceOverloaded("this replica has yet to hear what you were told", retry_after_s=1)

    def _wake(self) -> None:
        """Look where the line stands, once for all who wait for it."""
        now_s = asyncio.get_running_loop().time()
        if now_s - self._woken_s >= REACH_STEP_S:
            self._woken_s = now_s
            self._follower.wake()

    def _has_reached(self, epoch: int, seq: int) -> bool:
        line, owner = self.channel.line, self.owner
        if owner is None or not owner.telling:
            known = False
        elif line.epoch == owner.epoch:
            # Whoever numbers an epoch knows that there is no more of it.
            known = line.epoch == epoch
        else:
            # It will open a later one. Until then we stand where its last owner was last heard,
            # which may be behind what he told; where nobody was heard, nobody is taken back.
            known = not line.epoch and owner.epoch > epoch
        return known or (line.epoch, line.seq) >= (epoch, seq)

    async def belongs_to(self, user_id: str) -> bool:
        """Whether it is this user's; if it is not the one's any more whose it was, it ends.

        Raises:
            AccountNotFound: There is no such account.
            Unavailable: That cannot be told now.
        """
        if self.user_id == user_id:
            return True
        standing = await self._parts.owner.feed.credentials.standing(self.account_id)
        if str(standing.user_id) != self.user_id:
            self.stop(CloseCode.ENDED, "the account is gone")
        return False

    def relayed(self, relayed: Relayed) -> None:
        """Another replica has something to say."""
        if self.owner is None:
            self._follower.take(relayed)

    def poke(self) -> None:
        """Look again whether the account is ours."""
        self._follower.wake()

    def reread(self) -> None:
        """Go on with what is stored now, or end."""
        # Also for whoever follows, should the owner leave before it has read.
        self._reread = True
        self._polling.reread()
        self._follower.wake()

    def disconnect(self) -> None:
        """End it at the wish of the account's owner."""
        self.stop(CloseCode.ENDED, "the account was disconnected")

    def lost(self) -> None:
        """The terminal's lease is gone."""
        self._polling.lost()

    async def hand_over(self) -> None:
        """Stop polling, so that another replica can continue the line."""
        await self._polling.hand_over()

    def stop(self, code: CloseCode, reason: str) -> None:
        """End it for every watcher."""
        if not self._stopping.done():
            self._stopping.set_result((code, reason))

    async def closed(self) -> None:
        """Until everything of it has ended, however it has."""
        await asyncio.wait((self._task,))

    async def _run(self) -> None:
        work = asyncio.create_task(self._serve())
        try:
            await asyncio.wait((work, self._stopping), return_when=asyncio.FIRST_COMPLETED)
        finally:
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)
        self.channel.end(*self._ending(work))
        log.info("channel_ended", account_id=self.account_id, reason=self.channel.ending)

    def _ending(self, work: "asyncio.Task[Ending]") -> Ending:
        if self._stopping.done():
            self._refuse(StreamOver(*self._stopping.result()))
            return self._stopping.result()
        if work.cancelled():
            self._refuse(StreamOver(CloseCode.RESTART, "this replica restarts"))
            return CloseCode.RESTART, "this replica restarts"
        failure = work.exception()
        if failure is None:
            return work.result()
        over = ending_of(failure)
        if over.code is CloseCode.INTERNAL and not isinstance(failure, Unavailable):
            log.error("stream_failed", account_id=self.account_id, exc_info=failure)
        self._refuse(failure if isinstance(failure, Unavailable | AccountNotFound) else over)
        return over.code, over.reason

    def _refuse(self, failure: Exception) -> None:
        if not self._ready.done():
            self._ready.set_exception(failure)

    async def _serve(self) -> Ending:
        """Until nobody needs it; the ending.

        Raises:
            StreamOver: It ends for everybody.
            AccountNotFound: The account has been deleted.
            Unavailable: It cannot even begin.
        """
        if self._previous is not None:
            await self._previous.closed()
            self._previous = None
        await self._check()
        while True:
            try:
                ending = await self._term()
            except (Unavailable, RedisFault, StaleToken) as away:
                if not self._ready.done() and not isinstance(away, TerminalMoved):
                    raise
                if away.message != self._waits:
                    log.info("stream_waits", account_id=self.account_id, why=away.message)
                self._waits = away.message
                self.channel.deafen(away.message)
                if isinstance(away, StateUnavailable):
                    # Who could not be heard has not been silent.
                    self._follower.begin()
                await asyncio.sleep(RETRY_S)
                ending = None
                if self._ready.done() and not self.watched():
                    ending = CloseCode.NORMAL, "nobody watches"
            else:
                self._waits = None
            if ending is not None:
                # At once: nobody can come between this and the end.
                self.channel.end(*ending)
                return ending

    async def _term(self) -> Ending | None:
        """Poll or follow for as long as that is right."""
        await self._look()
        terminal_id = await self._terminal()
        if terminal_id is not None and self._parts.ours(terminal_id):
            left = await self._poll(terminal_id)
            if left is not Left.IDLE or self.watched():
                return None
        else:
            if not await self._follow():
                return None
            await self._leave_following()
            if self.watched():
                # Somebody has come meanwhile.
                return None
        return CloseCode.NORMAL, "nobody watches"

    async def _poll(self, terminal_id: str) -> Left:
        def begun() -> None:
            self._let_in()
            self.channel.hear_again()

        # What is stored is read now.
        self._reread = False
        left = await self._polling.run(terminal_id, begun, self._ended)
        self._follower.begin()
        if left is Left.LOST:
            await asyncio.sleep(RETRY_S)
        return left

    def _ended(self) -> bool:
        return self._stopping.done() and self._stopping.result()[0] is CloseCode.ENDED

    async def _look(self) -> None:
        """Stand where the line stands, so that whoever comes back can be told what it missed."""
        try:
            await self._follower.look()
        except StateUnavailable:
            raise
        except ServiceOverloaded:
            # Of another version, and has said so. If it is ours from here on, it begins anew.
            return
        except RedisFault as fault:
            log.error("line_not_read", account_id=self.account_id, error=fault.message)  # noqa: TRY400 - the traceback tells nothing more

    async def _check(self) -> None:
        """Refuse what its owner has ended."""
        standing = await self._parts.owner.feed.credentials.standing(self.account_id)
        if self.user_id not in {None, str(standing.user_id)}:
            raise StreamOver(CloseCode.ENDED, "the account is gone")
        self.row_id, self.user_id = standing.row_id, str(standing.user_id)
        check_connected(standing)

    async def _terminal(self) -> str | None:
        """The stream terminal reserved for the account; one is reserved if it has none.

        None if it has none, and an owner that has just been heard will say so: a Redis that has
        lost its data must not cost the account its terminal.
        """
        placement = self._parts.owner.placement
        reserved = await placement.where(self.account_id)
        if reserved is not None and reserved in self._parts.terminals.ids:
            return await instead_of(reserved, self.account_id, self._parts)
        if self.channel.line.epoch and self._follower.silent_s <= DEAF_AFTER_S:
            return None
        # Its owner may have left because the account has ended, which only others were told.
        await self._check()
        candidates = self._parts.candidates()
        return await placement.reserve(self.account_id, candidates, RESERVATION_TTL_S)

    async def _follow(self) -> bool:
        """Follow until the account may be ours (False), or nobody watches here (True)."""
        self._follower.begin()
        loop = asyncio.get_running_loop()
        linger_s = min(LINGER_S, self._parts.owner.idle_s)
        watched_s = loop.time()
        while True:
            await self._follower.look()
            if self._reread:
                await self._check_again()
            terminal_id = await self._owner_is_there()
            if terminal_id is not None and self._parts.ours(terminal_id):
                return False
            self._let_in()
            await self._follower.hear()
            if self.watched():
                watched_s = loop.time()
            elif loop.time() - watched_s > linger_s:
                return True

    async def _check_again(self) -> None:
        """As ordered; a store that is away is asked again, and does not disturb the stream."""
        self._reread = False
        try:
            await self._check()
        except Unavailable as away:
            self._reread = True
            log.warning("account_not_reread", account_id=self.account_id, error=away.message)

    async def _owner_is_there(self) -> str | None:
        """Ask the account's owner to begin, or tell the sockets of its silence; its terminal."""
        terminal_id = await self._terminal()
        silent_s = self._follower.silent_s
        if silent_s > DEAF_AFTER_S:
            self.channel.deafen("the replica that streams this account does not answer")
        elif self._follower.heard:
            self.channel.hear_again()
        if terminal_id and (silent_s > ASK_AFTER_S or not self.channel.line.epoch):
            lease = await self._parts.leases.holder(terminal_id)
            if lease is not None and lease.owner != self._parts.instance_id:
                await self._parts.live.ask(lease.owner, self.account_id)
        return terminal_id

    async def _leave_following(self) -> None:
        try:
            await self._follower.leave()
        except StateUnavailable as away:
            log.info("still_counted_as_follower", error=away.message)

    def _let_in(self) -> None:
        if not self._ready.done():
            self._ready.set_result(None)
