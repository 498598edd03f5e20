"""Lines to publish, and replicas that listen to what is relayed."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
from redis.asyncio import Redis

from mt5kit.state.redis import (
    Followed,
    Frame,
    Keys,
    Lease,
    LeaseStore,
    LiveState,
    LiveStore,
    Relayed,
)


def state(epoch: int, seq: int, *, terminal: str = "T1", as_of_ms: int = 5) -> LiveState:
    return LiveState(epoch, seq, as_of_ms, terminal, "ws-1", b"state %d" % seq, b"told %d" % seq)


def frames(first: int, last: int) -> tuple[Frame, ...]:
    return tuple(Frame(seq, b"h%d" % seq, b"m%d" % seq) for seq in range(first, last + 1))


async def followed(live: LiveStore, epoch: int, after_seq: int) -> Followed | None:
    """What account 1 tells replica ws-2, but for how long ago it was written."""
    found = await live.follow("1", "ws-2", epoch, after_seq)
    return found and msgspec.structs.replace(found, silent_ms=0)


async def leased(leases: LeaseStore, terminal_id: str = "T1", owner: str = "a") -> Lease:
    """A lease newer than the one that anybody holds."""
    held = await leases.holder(terminal_id)
    if held is not None:
        await leases.release(held)
    lease = await leases.acquire(terminal_id, owner)
    assert lease is not None
    return lease


class Ear:
    """What one replica has heard, in order."""

    def __init__(self, store: LiveStore) -> None:
        self._store = store
        self.stood = asyncio.Queue[None]()
        self._heard = asyncio.Queue[Relayed]()

    async def listen(self, replica: str) -> None:
        async for told in self._store.listen(replica, lambda: self.stood.put_nowait(None)):
            self._heard.put_nowait(told)

    async def next(self, count: int) -> list[Relayed]:
        async with asyncio.timeout(10):
            return [await self._heard.get() for _ in range(count)]

    async def until_asked(self, account_id: str) -> list[Relayed]:
        """All that was heard up to a request: one channel keeps the order."""
        heard: list[Relayed] = []
        while not heard or heard[-1] != Relayed("wanted", account_id):
            heard += await self.next(1)
        return heard[:-1]


@asynccontextmanager
async def listening(redis: Redis, keys: Keys, replica: str) -> AsyncIterator[Ear]:
    """A replica whose subscription stands."""
    ear = Ear(LiveStore(redis, keys))
    task = asyncio.create_task(ear.listen(replica))
    try:
        async with asyncio.timeout(10):
            await ear.stood.get()
        yield ear
    finally:
        task.cancel()
        await asyncio.wait([task])
