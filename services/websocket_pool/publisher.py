"""Writing an account's line and newest look to Redis, behind the sockets' backs and in order."""

import asyncio
from collections import deque
from typing import Final, NoReturn

import msgspec
import structlog

from mt5kit.domain.snapshots import Snapshot
from mt5kit.errors import StaleToken
from mt5kit.state.redis import LiveState, LiveStore, RedisFault, StateUnavailable
from websocket_pool.frames import frame_of
from websocket_pool.line import Numbered
from websocket_pool.stream import Stream

TOUCH_MS: Final = 400
"""How old `as_of` in Redis may be when a look comes, which is every half second at least."""

BEAT_S: Final = 1.5
"""An owner without looks says this often that it is there, so that its followers wait for it."""

RETRY_S: Final = 0.5
"""Between attempts that fail; nothing is lost but what the ring would lose too."""

log = structlog.get_logger(__name__)


class Publisher:
    """Publishes one stream. A publish that fails is repeated with what has come since.

    Args:
        store: Where to.
        stream: Of what; its callbacks are taken.
        token: The lease token under which it is polled.
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
        self._opened = False
        self._touched_ms = 0
        self._wake = asyncio.Event()
        self._one_at_a_time = asyncio.Lock()
        stream.on_message = self._note
        stream.on_look = self._looked

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
                self._wake.set()
                await asyncio.sleep(RETRY_S)
            else:
                away = False

    async def hand_over(self) -> bool:
        """Publish what is left and mark the line as handed over; whether it is.

        If it is not, its next owner opens a new epoch. Call it when the stream makes no more
        messages and `run` has ended.
        """
        if not self._stream.opened:
            return False
        place = self._stream.line.place
        try:
            await self._write()
            return await self._store.hand_over(
                place.account_id, self._token, place.epoch, place.seq, self._source[0]
            )
        except (StaleToken, StateUnavailable, RedisFault) as failure:
            log.warning("line_not_handed_over", error=failure.message)
            return False

    def _note(self, numbered: Numbered) -> None:
        self._pending.append(numbered)
        while self._pending and self._pending[0].seq < self._stream.line.oldest_seq:
            self._pending.popleft()
        self._wake.set()

    async def _wait(self) -> None:
        try:
            async with asyncio.timeout(BEAT_S):
                await self._wake.wait()
        except TimeoutError:
            return
        self._wake.clear()

    def _looked(self) -> None:
        if not self._opened or self._stream.as_of_ms >= self._touched_ms + TOUCH_MS:
            self._wake.set()

    async def _write(self) -> None:
        # A write that was cancelled may still be under way.
        async with self._one_at_a_time:
            if not self._stream.opened:
                return
            look = self._stream.look
            if self._pending or not self._opened or _differ(look, self._published):
                await self._publish(look)
            else:
                await self._touch(look)

    async def _touch(self, look: Snapshot | None) -> None:
        account_id, terminal_id = self._stream.line.place.account_id, self._source[0]
        as_of_ms = self._stream.as_of_ms
        if await self._store.touch(account_id, self._token, as_of_ms, terminal_id):
            self._touched_ms = as_of_ms
        else:
            await self._publish(look)

    async def _publish(self, look: Snapshot | None) -> None:
        line = self._stream.line
        place, as_of_ms = line.place, self._stream.as_of_ms
        state = LiveState(
            epoch=place.epoch,
            seq=place.seq,
            as_of_ms=as_of_ms,
            terminal_id=self._source[0],
            instance_id=self._source[1],
            payload=msgspec.json.encode(look) if look else b"",
            told=msgspec.json.encode(line.told),
        )
        frames = [frame_of(numbered) for numbered in self._pending]
        oldest = line.oldest_seq
        await self._store.publish(place.account_id, self._token, state, frames, oldest_seq=oldest)
        self._published, self._touched_ms, self._opened = look, as_of_ms, True
        while self._pending and self._pending[0].seq <= place.seq:
            self._pending.popleft()


def _differ(one: Snapshot | None, other: Snapshot | None) -> bool:
    if one is None or other is None:
        return one is not other
    return (one.account, one.positions, one.orders, one.terminal) != (
        other.account,
        other.positions,
        other.orders,
        other.terminal,
    )
