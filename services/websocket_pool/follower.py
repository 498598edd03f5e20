"""Hearing of an account that another replica polls."""

import asyncio
from collections import deque
from typing import Final

import structlog

from mt5kit.errors import ServiceOverloaded
from mt5kit.state.redis import LiveStore, Relayed
from websocket_pool.channel import Caught, Channel
from websocket_pool.frames import NotUnderstood, numbered_of

FOLLOW_S: Final = 2.0
"""Between two looks at where the line stands: what was lost on the way is found by then."""

MOST_WAITING: Final = 500
"""Relayed messages that wait; with more it is cheaper to look where the line stands."""

log = structlog.get_logger(__name__)


class Follower:
    """Feeds a channel from what the account's owner relays through Redis.

    Args:
        channel: Whose account.
        live: Where it is relayed.
        replica: This replica.

    Attributes:
        heard: Whether the account's owner has been heard since we began to listen to it.
    """

    def __init__(self, channel: Channel, live: LiveStore, replica: str) -> None:
        self._channel = channel
        self._live = live
        self._replica = replica
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[Relayed] = deque(maxlen=MOST_WAITING)
        self._come = asyncio.Event()
        self._heard_s = self._loop.time()
        self._foreign = False
        self.heard = False

    @property
    def silent_s(self) -> float:
        """Seconds since the account's owner last wrote, or since we began to listen to it."""
        return self._loop.time() - self._heard_s

    def begin(self) -> None:
        """Count silence from now on; what was relayed before is known already."""
        self._waiting.clear()
        self._heard_s = self._loop.time()
        self.heard = False

    def take(self, relayed: Relayed) -> None:
        """Something was relayed."""
        self._waiting.append(relayed)
        self._come.set()

    def wake(self) -> None:
        """Have `hear` return."""
        self._waiting.append(Relayed("look", ""))
        self._come.set()

    async def look(self) -> None:
        """Stand where the line stands, and say that we follow it.

        Raises:
            StateUnavailable: Redis is away.
            ServiceOverloaded: The account's owner is of a version that we do not understand.
        """
        place = self._channel.place
        # Without a state there is nothing to go on from.
        known = (0, 0) if self._channel.blank else (place.epoch, place.seq)
        try:
            await self._stand_there(*known)
        except NotUnderstood:
            await self._stand_there_afresh()
        else:
            self._foreign = False

    async def _stand_there_afresh(self) -> None:
        """Pass over messages that are not understood: what they lead to may be."""
        try:
            await self._stand_there(0, 0, afresh=True)
        except NotUnderstood as odd:
            if not self._foreign:
                account_id = self._channel.place.account_id
                log.warning("line_not_understood", account_id=account_id, error=str(odd))
            self._foreign = True
            raise ServiceOverloaded(
                "the replica that streams this account is of another version",
                retry_after_s=FOLLOW_S,
            ) from odd

    async def _stand_there(self, epoch: int, seq: int, *, afresh: bool = False) -> None:
        account_id = self._channel.place.account_id
        followed = await self._live.follow(account_id, self._replica, epoch, seq)
        if followed is not None:
            caught = Caught(followed.epoch, followed.seq, followed.told, followed.frames)
            self._channel.catch_up(caught, afresh=afresh)
            heard_s = self._loop.time() - followed.silent_ms / 1000
            # What was written before is told for what it is worth, but its owner may be gone.
            self.heard = self.heard or heard_s >= self._heard_s
            self._heard_s = max(self._heard_s, heard_s)

    async def hear(self, timeout_s: float = FOLLOW_S) -> None:
        """Take what is relayed until the time is over, or something is missing."""
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    while self._waiting:
                        if not self._heed(self._waiting.popleft()):
                            return
                    self._come.clear()
                    await self._come.wait()
        except TimeoutError:
            return

    async def leave(self) -> None:
        """Say that we follow it no more.

        Raises:
            StateUnavailable: Redis is away; it notices by itself.
        """
        await self._live.unfollow(self._channel.place.account_id, self._replica)

    def _heed(self, relayed: Relayed) -> bool:
        """Whether the line can go on without looking where it stands."""
        line, frame = self._channel.line, relayed.frame
        if (
            frame is None
            or self._channel.blank
            or relayed.epoch != line.epoch
            or frame.seq > line.seq + 1
        ):
            # What else waits is behind what will be found.
            self._waiting.clear()
            return False
        if frame.seq == line.seq + 1:
            try:
                self._channel.heard(numbered_of(frame, live=True))
            except NotUnderstood:
                # As if it were lost: what it leads to is looked up.
                self._waiting.clear()
                return False
            self._heard_s = self._loop.time()
            self.heard = True
        return True
