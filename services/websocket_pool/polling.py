"""An account's turn at a terminal of ours: from the lease to the end of the poll."""

import asyncio
from collections.abc import Callable

import structlog

from mt5kit.errors import AccountNotFound, TerminalMoved
from mt5kit.state.redis import Claim, RedisFault
from websocket_pool.channel import Caught, Channel
from websocket_pool.close_codes import CloseCode
from websocket_pool.credentials import StoredAccount
from websocket_pool.feed import check_connected
from websocket_pool.frames import NotUnderstood
from websocket_pool.owner import Left, Owner, Tenure, give_up
from websocket_pool.source import StreamOver
from websocket_pool.stream_parts import StreamParts

log = structlog.get_logger(__name__)


class Polling:
    """Makes the owner of an account whenever its terminal is ours.

    Args:
        account_id: Whose.
        channel: Where the messages go.
        watched: Whether anybody watches here.
        parts: What accounts share.

    Attributes:
        owner: Our poll; None while there is none.
    """

    def __init__(
        self, account_id: str, channel: Channel, watched: Callable[[], bool], parts: StreamParts
    ) -> None:
        self.owner: Owner | None = None
        self._account_id = account_id
        self._channel = channel
        self._watched = watched
        self._parts = parts
        self._reread = False
        self._settled = asyncio.Event()
        self._settled.set()

    def reread(self) -> None:
        """Go on with what is stored now, or end."""
        # Also should it have been read already by an owner that is just being made.
        self._reread = True
        if self.owner is not None:
            self.owner.reread()

    def lost(self) -> None:
        """The terminal's lease is gone."""
        if self.owner is not None:
            self.owner.leave(Left.LOST)

    async def hand_over(self) -> None:
        """Stop, so that another replica can continue the line."""
        if self.owner is not None:
            self.owner.leave(Left.HANDED)
            await self._settled.wait()

    async def run(
        self, terminal_id: str, begun: Callable[[], None], ended: Callable[[], bool]
    ) -> Left:
        """Poll on a terminal of ours until there is a reason to stop.

        Args:
            terminal_id: Which.
            begun: Told when the poll begins.
            ended: Whether the account has ended, should this be cancelled.

        Raises:
            StreamOver: It ends for everybody.
            AccountNotFound: The account has been deleted.
            Unavailable: It cannot begin now; the lease may be gone.
        """
        token = 0
        try:
            token = await self._parts.keeper.reissue(terminal_id)
            return await self._poll(terminal_id, token, begun)
        except (StreamOver, AccountNotFound):
            await self._give_up(terminal_id, token)
            raise
        except asyncio.CancelledError:
            if ended():
                await self._give_up(terminal_id, token)
            raise

    async def _poll(self, terminal_id: str, token: int, begun: Callable[[], None]) -> Left:
        parts = self._parts
        self._reread = False
        account = await parts.owner.feed.credentials.read(self._account_id)
        check_connected(account)
        epoch = await self._epoch(account, token, terminal_id)
        tenure = Tenure(
            parts.terminals.get(terminal_id),
            token,
            epoch,
            lambda: parts.keeper.token_of(terminal_id),
        )
        if not parts.ours(terminal_id):
            # It was lost meanwhile, which only owners are told.
            raise TerminalMoved(f"terminal {terminal_id} went to another replica", retry_after_s=1)
        self._settled.clear()
        self.owner = Owner(account, tenure, self._channel, self._watched, parts.owner)
        if self._reread:
            # It has changed since it was read.
            self.owner.reread()
        begun()
        try:
            left = await self.owner.run()
        finally:
            self.owner = None
            self._settled.set()
        if left is Left.IDLE and not self._watched():
            await self._give_up(terminal_id, token)
        return left

    async def _epoch(self, account: StoredAccount, token: int, terminal_id: str) -> int:
        """The line's epoch: that of its last owner if it can be continued, else a new one.

        Raises:
            StreamOver: The line is of another login: only new sockets may see this one.
        """
        live, line = self._parts.live, self._channel.line
        await live.unfollow(self._account_id, self._parts.instance_id)
        try:
            claim = await live.take_over(self._account_id, token, terminal_id)
        except RedisFault as fault:
            log.error("line_not_taken_over", account_id=self._account_id, error=fault.message)  # noqa: TRY400 - the traceback tells nothing more
            claim = Claim(None, 0)
        taken, epoch = claim.taken, token
        if taken is not None and not (taken.epoch == line.epoch and taken.seq < line.seq):
            try:
                self._channel.catch_up(Caught(taken.epoch, taken.seq, taken.told, taken.frames))
            except NotUnderstood as odd:
                log.warning("line_not_understood", account_id=self._account_id, error=str(odd))
            if (line.epoch, line.seq) == (taken.epoch, taken.seq):
                epoch = taken.epoch
        told = line.told.account
        if told is not None and told.identity != account.credentials.identity:
            await live.drop(self._account_id, token, terminal_id)
            raise StreamOver(CloseCode.RESTART, "the account has another login now")
        if epoch == token:
            await self._settle(claim.remembers_ms, token, terminal_id)
        return epoch

    async def _settle(self, remembers_ms: int, token: int, terminal_id: str) -> None:
        """Let an owner that Redis has forgotten find out that we are it.

        Another terminal may have been reserved since, and that one does not refuse its token. A
        claim may be forgotten, too: then it is made and waited for once more.
        """
        while (left_s := self._parts.settle_s - remembers_ms / 1000) > 0:
            log.info("owners_settle", account_id=self._account_id, left_s=round(left_s, 3))
            await asyncio.sleep(left_s)
            claim = await self._parts.live.take_over(self._account_id, token, terminal_id)
            remembers_ms = claim.remembers_ms

    async def _give_up(self, terminal_id: str, token: int) -> None:
        await give_up(self._account_id, token, terminal_id, self._parts.owner)
