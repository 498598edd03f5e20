"""Writing an account's line and newest look to Redis, behind the sockets' backs and in order."""

import asyncio
from collections import deque
from typing import Final, NoReturn

import msgspec
import structlog

from mt5kit.domain.snapshots import Snapshot
from mt5kit.state.redis import LiveState, LiveStore, RedisFault, StateUnavailable
from websocket_pool.line import Numbered
from websocket_pool.stream import Stream

TOUCH_S: Final = 1.0
"""How old `as_of` in Redis may be while the terminal answers."""

RETRY_S: Final = 0.5
"""Between attempts that fail; nothing is lost but what the ring would lose too."""

log = structlog.get_logger(__name__)


class Publisher:
    """Publishes one stream. A publish that fails is repeated with what has come since.

    Args:
        store: Where to.
        stream: Of what.
        token: The lease token that opened the line.
        terminal_id: Where the looks come from.
        instance_id: This replica.
    """

    def __init__(
        self, store: LiveStore, stream: Stream, token: int, terminal_id: str, instance_id: str
    ) -> None:
        self._store = store
        self._stream = stream
        self._token = token
        self._source = (terminal_id, instance_id)
        self._pending: deque[Numbered] = deque()
        self._published: Snapshot | None = None
        self._touched_ms = 0
        self._wake = asyncio.Event()

    def note(self, numbered: Numbered) -> None:
        """Publish this message soon."""
        self._pending.append(numbered)
        while self._pending and self._pending[0].seq < self._stream.line.oldest_seq:
            self._pending.popleft()
        self._wake.set()

    async def run(self) -> NoReturn:
        """Publish until cancelled.

        Raises:
            StaleToken: A newer owner has written.
        """
        away = False
        while True:
            await self._wait()
            try:
                await self._write()
            except (StateUnavailable, RedisFault) as failure:
                if not away:
                    log.warning("live_state_not_published", error=failure.message)
                away = True
                await asyncio.sleep(RETRY_S)
            else:
                away = False

    async def _wait(self) -> None:
        try:
            async with asyncio.timeout(TOUCH_S):
                await self._wake.wait()
        except TimeoutError:
            return
        self._wake.clear()

    async def _write(self) -> None:
        look = self._stream.look
        if look is None:
            return
        if self._pending or self._published is None or _differ(look, self._published):
            await self._publish(look)
        elif self._stream.as_of_ms > self._touched_ms:
            await self._touch(look)

    async def _touch(self, look: Snapshot) -> None:
        account_id, terminal_id = self._stream.place.account_id, self._source[0]
        as_of_ms = self._stream.as_of_ms
        if await self._store.touch(account_id, self._token, as_of_ms, terminal_id):
            self._touched_ms = as_of_ms
        else:
            await self._publish(look)

    async def _publish(self, look: Snapshot) -> None:
        place, line = self._stream.place, self._stream.line.snapshot()
        state = LiveState(
            epoch=place.epoch,
            seq=place.seq,
            as_of_ms=look.seen_ms,
            terminal_id=self._source[0],
            instance_id=self._source[1],
            payload=msgspec.json.encode(look),
            line=line.text.encode() if line else b"",
        )
        frames = [(one.seq, one.message.text.encode()) for one in self._pending]
        oldest = self._stream.line.oldest_seq
        await self._store.publish(place.account_id, self._token, state, frames, oldest_seq=oldest)
        self._published, self._touched_ms = look, look.seen_ms
        while self._pending and self._pending[0].seq <= place.seq:
            self._pending.popleft()


def _differ(one: Snapshot, other: Snapshot) -> bool:
    return (one.account, one.positions, one.orders, one.terminal) != (
        other.account,
        other.positions,
        other.orders,
        other.terminal,
    )
