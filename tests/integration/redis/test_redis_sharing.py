"""Replicas and terminals come and go: what there is is shared out, and little of it moves."""

import itertools
import math
import random
from collections.abc import AsyncIterator, Callable

import pytest
from redis.asyncio import Redis

from mt5kit.service.roster import Roster
from mt5kit.state.redis import BoardStore, KeeperPlan, Keys, LeaseKeeper, LeaseStore, TerminalEntry
from mt5kit.state.redis.keeper_plan import slot_of

TERMINALS = tuple(f"t-{n}" for n in range(1, 13))
STEPS = 40
ROUNDS = 8


class Replica:
    """A keeper, and what its replica knows of terminals: DNS and the board."""

    def __init__(self, world: "World", name: str) -> None:
        self.name = name
        self.lost: list[str] = []
        self._world = world
        self.roster = Roster(TERMINALS, world.there.__contains__, self._held, lambda: world.now_s)
        plan = KeeperPlan("api", name, self.roster.terminals)
        self.keeper = LeaseKeeper(world.leases, plan, on_lost=self.lost.append)

    async def turn(self) -> None:
        """Speak, listen, and run a round."""
        world = self._world
        for terminal_id in [*self.keeper.held]:
            if terminal_id in world.draining:
                await world.board.publish({terminal_id: self._entry(terminal_id)})
                self.keeper.give_up(terminal_id)
        await world.board.publish({one: self._entry(one) for one in self.keeper.held})
        self.roster.told(await world.board.read())
        await self.keeper.round()

    def _held(self) -> dict[str, bool]:
        return {one: one in self._world.there for one in self.keeper.held}

    def _entry(self, terminal_id: str) -> TerminalEntry:
        up, draining = terminal_id in self._world.there, terminal_id in self._world.draining
        return TerminalEntry(self.name, up, 0, None, 0, draining=draining)


class World:
    """What there is, and a time that passes when told to."""

    def __init__(self, redis: Redis, keys: Keys, seed: int) -> None:
        self.leases, self.board = LeaseStore(redis, keys), BoardStore(redis, keys)
        self.chance = random.Random(seed)
        self.now_s = 1000.0
        self.there: set[str] = {"t-1", "t-2", "t-3"}
        self.draining: set[str] = set()
        self.replicas: dict[int, Replica] = {}
        self._tasks = itertools.count()

    def task(self, slot: int) -> Replica:
        return Replica(self, f"mt5_api-pool.{slot}.{next(self._tasks):025d}")

    async def settle(self) -> None:
        """Until everybody has heard of everything."""
        for _ in range(ROUNDS):
            self.now_s += 2.5
            for replica in self.chance.sample([*self.replicas.values()], len(self.replicas)):
                await replica.turn()

    def assert_shared(self) -> None:
        held = [[*replica.keeper.held] for replica in self.replicas.values()]
        assert sorted(itertools.chain(*held)) == sorted(self.there - self.draining)
        most = math.ceil(
            len(self.there - self.draining) / len({slot_of(one) for one in self._names})
        )
        assert max(map(len, held)) <= most, held

    @property
    def _names(self) -> list[str]:
        return [replica.name for replica in self.replicas.values()]

    def moved(self) -> int:
        """How many leases have gone since this was asked last."""
        lost = [replica.lost for replica in self.replicas.values()]
        count = sum(map(len, lost))
        for each in lost:
            each.clear()
        return count

    # -- what happens: each gives how many leases may move because of it ------------------------

    async def join(self) -> int:
        slot = max(self.replicas, default=0) + 1
        held = [len(replica.keeper.held) for replica in self.replicas.values()]
        self.replicas[slot] = self.task(slot)
        share = math.ceil(len(self.there) / len(self.replicas))
        # What is above a smaller share, and nothing else.
        return sum(max(0, each - share) for each in held)

    async def leave(self) -> int:
        if len(self.replicas) > 1:
            gone = self.replicas.pop(max(self.replicas))
            await gone.keeper.close()
        return 0

    async def update(self) -> int:
        slot = self.chance.choice([*self.replicas])
        old, new = self.replicas[slot], self.task(slot)
        for each in (new, old, new):
            await each.turn()
        assert not new.keeper.held, "what the old one has is not for others"
        await old.keeper.close()
        self.replicas[slot] = new
        return 0

    async def scale_up(self) -> int:
        absent = [one for one in TERMINALS if one not in self.there]
        self.there |= {*absent[:2]}
        return 0

    async def scale_down(self) -> int:
        """Drained first, then gone; shares get smaller."""
        if len(self.there) < 3:
            return 0
        leaving = max(self.there, key=TERMINALS.index)
        self.draining.add(leaving)
        await self.settle()
        assert not any(leaving in each.keeper.held for each in self.replicas.values())
        self.there.discard(leaving)
        self.draining.discard(leaving)
        # It, and what is too much for a smaller share.
        return 1 + len(self.replicas)

    async def crash(self) -> int:
        """Gone without a word, name and all."""
        if len(self.there) < 3:
            return 0
        self.there.discard(self.chance.choice(sorted(self.there)))
        await self.settle()
        return 1 + len(self.replicas)


@pytest.fixture(params=range(4))
async def world(request: pytest.FixtureRequest, redis: Redis, keys: Keys) -> AsyncIterator[World]:
    world = World(redis, keys, request.param)
    yield world
    for replica in world.replicas.values():
        await replica.keeper.close()


async def test_what_there_is_is_shared_out_and_little_of_it_moves(world: World) -> None:
    await world.join()
    await world.settle()
    world.assert_shared()
    world.moved()
    kinds: list[Callable[[], object]] = [
        world.join,
        world.leave,
        world.update,
        world.scale_up,
        world.scale_down,
        world.crash,
    ]
    for _ in range(STEPS):
        kind = world.chance.choice(kinds)
        if kind == world.join and len(world.replicas) == 4:
            continue
        may_move = await kind()  # type: ignore[misc]
        await world.settle()
        world.assert_shared()
        assert world.moved() <= may_move, kind
