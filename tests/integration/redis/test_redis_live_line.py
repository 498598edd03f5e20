"""Whatever owners, followers and Redis do: a number of an epoch means one message, to everybody."""

from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis
from tests.integration.redis.lines import Ear, leased, listening
from tests.integration.redis.world import Reader, World

from mt5kit.errors import StaleToken
from mt5kit.state.redis import (
    Followed,
    Frame,
    Keys,
    LeaseStore,
    LiveState,
    LiveStore,
    Relayed,
    Taken,
)

STEPS = 300
LIFE_BEFORE = "0" * 40


class Owner:
    """A replica that polls now and then, and may not know that its time is over."""

    def __init__(self, name: str, world: World, live: LiveStore, leases: LeaseStore) -> None:
        self.name, self.world, self.live, self.leases = name, world, live, leases
        self.reader = Reader(world)
        self.token = 0
        self.pending: list[Frame] = []
        self.told = b""

    async def start(self) -> None:
        self.token = 0
        terminal = self.world.rng.choice(("T1", "T1", "T2"))
        token = (await leased(self.leases, terminal, self.name)).token
        self.terminal, self.pending, self.told = terminal, [], b""

        async def take() -> Taken | None:
            return (await self.live.take_over("1", token, terminal)).taken

        taken: Taken | None = await self.world.attempt(take)
        if taken is None:
            self.reader.everything(token, 0, b"")
        else:
            self.world.happened["taken over"] += 1
            for frame in taken.frames:
                self.world.says(taken.epoch, frame.seq, frame.text)
            self.reader.everything(taken.epoch, taken.seq, taken.told)
            self.told = taken.told
        self.token = token

    def number(self) -> None:
        if self.token:
            seq = self.reader.seq + 1
            self.told = b"%s %d" % (self.name.encode(), self.world.rng.getrandbits(60))
            self.pending.append(Frame(seq, b"h%d" % seq, self.told))
            self.reader.frame(self.pending[-1])
            if self.world.rng.random() < 0.05:
                # Out of the ring, before Redis had it.
                del self.pending[0]

    async def publish(self) -> bool:
        if not self.token:
            return False
        seq, token, sent = self.reader.seq, self.token, tuple(self.pending)
        state = LiveState(self.reader.epoch, seq, seq, self.terminal, self.name, b"look", self.told)

        async def write() -> bool:
            await self.live.publish("1", token, state, sent)
            return True

        if await self.world.attempt(write):
            self.pending = []
            return True
        return False

    async def hand_over(self) -> None:
        if await self.publish():
            token, terminal = self.token, self.terminal
            epoch, seq = self.reader.epoch, self.reader.seq

            async def hand() -> bool:
                return await self.live.hand_over("1", token, epoch, seq, terminal)

            await self.world.attempt(hand)
        self.token = 0

    async def end(self) -> None:
        if self.token:
            await self.live.drop("1", self.token, self.terminal)
        self.token = 0

    async def step(self) -> None:
        starts = 0.5 if self.token else 5
        (what,) = self.world.rng.choices(
            ("number", "publish", "hand over", "crash", "end", "start"),
            (20, 15, 3, 0.5, 0.2, starts),
        )
        try:
            match what:
                case "number":
                    self.number()
                case "publish":
                    await self.publish()
                case "start":
                    await self.start()
                case "hand over":
                    await self.hand_over()
                case "end":
                    await self.end()
                case _:
                    self.token = 0
        except StaleToken:
            self.world.happened["refused"] += 1
            self.token = 0


class Follower:
    """A replica that hears some of what is relayed, and follows again now and then."""

    def __init__(self, world: World, live: LiveStore, ear: Ear) -> None:
        self.world, self.live, self.ear = world, live, ear
        self.reader = Reader(world)

    async def hear(self, loss: float) -> None:
        await self.live.ask("ws-2", "1")
        for relayed in await self.ear.until_asked("1"):
            if self.world.rng.random() >= loss:
                await self._heed(relayed)

    async def _heed(self, relayed: Relayed) -> None:
        frame, reader = relayed.frame, self.reader
        if frame is None or relayed.epoch != reader.epoch or frame.seq > reader.seq + 1:
            await self.follow()
        elif frame.seq == reader.seq + 1:
            self.world.happened["heard"] += 1
            reader.frame(frame)

    async def follow(self) -> None:
        reader = self.reader
        found: Followed | None = await self.live.follow("1", "ws-2", reader.epoch, reader.seq)
        if found is None:
            return
        for frame in found.frames:
            self.world.says(found.epoch, frame.seq, frame.text)
        if found.told is None:
            assert found.epoch == reader.epoch
            for frame in found.frames:
                self.world.happened["closed a gap"] += 1
                reader.frame(frame)
            assert reader.seq >= found.seq
        else:
            self.world.happened["was told all"] += 1
            assert (found.epoch, found.seq) != (reader.epoch, reader.seq)
            reader.everything(found.epoch, found.seq, found.told)


class Files:
    """Redis comes back with an older file, or with none."""

    def __init__(self, world: World, redis: Redis, keys: Keys) -> None:
        self.world, self.redis, self.live = world, redis, keys.live("1")
        self._kept: dict[bytes | str, tuple[bytes, int]] = {}

    async def keep(self) -> None:
        self._kept = {}
        for key in await self.redis.keys("*"):
            value = await self.redis.dump(key)
            assert value is not None
            self._kept[key] = value, await self.redis.pttl(key)

    async def come_back(self) -> None:
        # A call under way does not survive the connection.
        self.world.late.clear()
        await self.redis.flushall()
        for key, (value, ttl_ms) in self._kept.items():
            await self.redis.restore(key, max(0, ttl_ms), value)
        for mark in ("life", "handed"):
            if await self.redis.hexists(self.live, mark):
                await self.redis.hset(self.live, mark, LIFE_BEFORE)

    async def step(self) -> None:
        fate = self.world.rng.random()
        if fate < 0.5:
            await self.keep()
        elif fate < 0.7:
            await self.come_back()
        elif fate < 0.8:
            self.world.late.clear()
            await self.redis.flushall()


@pytest.fixture
async def ear(redis: Redis, keys: Keys) -> AsyncIterator[Ear]:
    async with listening(redis, keys, "ws-2") as listener:
        yield listener


@pytest.mark.parametrize("seed", range(8))
async def test_no_number_is_repeated_or_skipped(
    seed: int, redis: Redis, admin: Redis, keys: Keys, ear: Ear
) -> None:
    world, live, leases = World(seed), LiveStore(redis, keys), LeaseStore(redis, keys)
    owners = [Owner(name, world, live, leases) for name in "ab"]
    follower, files = Follower(world, live, ear), Files(world, admin, keys)
    for _ in range(STEPS):
        for owner in owners:
            await owner.step()
        if world.rng.random() < 0.5:
            await follower.hear(loss=0.2)
        if world.rng.random() < 0.2:
            await follower.follow()
        if world.rng.random() < 0.3:
            await world.arrive()
        if world.rng.random() < 0.05:
            await files.step()
    await _settled(owners[0], follower)
    print(f"seed {seed}: {dict(world.happened)}")  # noqa: T201 - shown when it fails
    for event in ("taken over", "answer lost", "refused", "heard", "closed a gap", "was told all"):
        assert world.happened[event], event


async def _settled(owner: Owner, follower: Follower) -> None:
    """When all goes well again the follower stands where the owner does."""
    owner.world.late.clear()
    await owner.start()
    owner.number()
    for _ in range(100):
        if await owner.publish():
            break
    await follower.follow()
    assert (follower.reader.epoch, follower.reader.seq) == (owner.reader.epoch, owner.reader.seq)
