import asyncio
import random
from collections.abc import Awaitable

import pytest
from redis.asyncio import Redis

from mt5kit.errors import ServiceOverloaded
from mt5kit.state.redis import Keys, PlacementStore, StateUnavailable

HOUR_MS = 3_600_000


@pytest.fixture
def api(redis: Redis, keys: Keys) -> PlacementStore:
    return PlacementStore(redis, keys, "api")


@pytest.fixture
def aged(redis: Redis, keys: Keys) -> "Aged":
    return Aged(redis, keys)


class Aged:
    """Sets back when accounts were used."""

    def __init__(self, redis: Redis, keys: Keys) -> None:
        self._redis = redis
        self._keys = keys

    async def __call__(self, terminal: str, **idle_ms: int) -> None:
        for account, idle in idle_ms.items():
            at = await self.now_ms() - idle
            await self._redis.zadd(self._keys.sessions("api", terminal), {account: at}, xx=True)

    async def now_ms(self) -> int:
        seconds, micros = await self._redis.time()
        return int(seconds) * 1000 + int(micros) // 1000


async def answer_of(placing: Awaitable[str]) -> str | ServiceOverloaded:
    try:
        return await placing
    except ServiceOverloaded as full:
        return full


async def on(api: PlacementStore, terminal: str) -> set[str]:
    return set(await api.sessions(terminal))


async def test_the_emptiest_terminal_is_chosen_and_kept(api: PlacementStore) -> None:
    assert await api.place("1", ["T1", "T2"]) == "T1"
    assert await api.place("2", ["T1", "T2"]) == "T2"
    assert await api.place("3", ["T1", "T2"]) == "T1"
    assert await api.place("3", ["T2", "T1"]) == "T1"
    assert await api.where("3") == "T1"
    assert await api.where_many(["3", "unknown", "2"]) == {"3": "T1", "2": "T2"}
    assert await api.where_many([]) == {}
    assert await on(api, "T1") == {"1", "3"}
    assert await api.counts(["T2", "T1", "T3"]) == {"T1": 2, "T2": 1, "T3": 0}
    assert await api.counts([]) == {}


async def test_an_account_moves_when_its_terminal_is_no_candidate(api: PlacementStore) -> None:
    await api.place("1", ["T1"])
    assert await api.place("1", ["T2"]) == "T2"
    assert await on(api, "T1") == set()
    assert await on(api, "T2") == {"1"}


async def test_an_account_stays_where_it_may_though_no_candidate(api: PlacementStore) -> None:
    await api.place("1", ["T1"])
    assert await api.place("1", ["T2"], keep=["T1", "T2"], capacity={"T2": 9}) == "T1"
    # A candidate that it may not keep is as good as any other for it.
    assert await api.place("1", ["T1"], keep=[], capacity=1) == "T1"
    assert await api.place("1", ["T2"], keep=["T2"]) == "T2"


async def test_removing_leaves_no_trace(api: PlacementStore, admin: Redis) -> None:
    await api.place("1", ["T1"])
    assert not await api.remove_if("1", "T2")
    assert await api.where("1") == "T1"
    assert await api.remove("1")
    assert not await api.remove("1")
    assert await api.where("1") is None
    await api.place("1", ["T1"])
    assert await api.remove_if("1", "T1")
    assert await admin.keys("*") == []


async def test_full_terminals_take_no_more_but_keep_theirs(api: PlacementStore) -> None:
    await api.place("1", ["T1"], capacity=1)
    with pytest.raises(ServiceOverloaded) as full:
        await api.place("2", ["T1"], capacity=1)
    assert full.value.retry_after_s == 30
    assert await api.place("1", ["T1"], capacity=1) == "T1"
    with pytest.raises(ServiceOverloaded):
        await api.place("3", [])
    assert await api.place("3", ["T1", "T2", "T3"], capacity={"T1": 1, "T3": 1}) == "T3"
    with pytest.raises(ServiceOverloaded):
        await api.place("4", ["T2"], capacity={})


async def test_many_at_once_spread_evenly(api: PlacementStore) -> None:
    terminals = ["T1", "T2", "T3"]
    await asyncio.gather(*(api.place(str(number), terminals) for number in range(30)))
    assert await api.counts(terminals) == dict.fromkeys(terminals, 10)


async def test_the_longest_idle_session_of_all_makes_room(api: PlacementStore, aged: Aged) -> None:
    for account, terminal in (("a", "T1"), ("b", "T1"), ("c", "T2"), ("d", "T2")):
        await api.place(account, [terminal])
    await aged("T1", a=2 * HOUR_MS)
    await aged("T2", c=3 * HOUR_MS, d=4 * HOUR_MS)
    assert await api.place("e", ["T1", "T2"], capacity=2, idle_ms=HOUR_MS) == "T2"
    assert await api.where_many(["a", "b", "c", "d", "e"]) == {
        "a": "T1",
        "b": "T1",
        "c": "T2",
        "e": "T2",
    }
    assert await on(api, "T2") == {"c", "e"}


async def test_without_an_idle_session_the_wait_is_said(api: PlacementStore, aged: Aged) -> None:
    await api.place("a", ["T1"])
    await api.place("b", ["T2"])
    await aged("T1", a=20_000)
    await aged("T2", b=50_000)
    with pytest.raises(ServiceOverloaded) as full:
        await api.place("c", ["T1", "T2"], capacity=1, idle_ms=60_000)
    assert full.value.retry_after_s is not None
    assert 1 <= full.value.retry_after_s <= 10
    with pytest.raises(ServiceOverloaded) as soon:
        await api.place("c", ["T2"], capacity=1, idle_ms=HOUR_MS)
    assert soon.value.retry_after_s is not None
    assert HOUR_MS / 1000 - 60 < soon.value.retry_after_s <= HOUR_MS / 1000 - 50
    await aged("T2", b=HOUR_MS - 1)
    # It may have come of age meanwhile; if not, nobody is to come back within a second.
    nearly = await answer_of(api.place("c", ["T2"], capacity=1, idle_ms=HOUR_MS))
    assert nearly == "T2" or (isinstance(nearly, ServiceOverloaded) and nearly.retry_after_s == 1)
    with pytest.raises(ServiceOverloaded) as never:
        await api.place("d", ["T1", "T2"], capacity=0, idle_ms=1)
    assert never.value.retry_after_s == 30


async def test_a_terminal_whose_room_has_shrunk_is_not_overfilled(
    api: PlacementStore, aged: Aged
) -> None:
    for account in "abc":
        await api.place(account, ["T1"])
    await aged("T1", a=3 * HOUR_MS, b=2 * HOUR_MS)
    # Two must go for one to come, and the second of them is not idle for long enough yet.
    with pytest.raises(ServiceOverloaded) as full:
        await api.place("d", ["T1"], capacity=2, idle_ms=2 * HOUR_MS + 60_000)
    assert full.value.retry_after_s is not None
    assert 50 < full.value.retry_after_s <= 60
    assert await api.place("d", ["T1"], capacity=2, idle_ms=HOUR_MS) == "T1"
    assert await on(api, "T1") == {"c", "d"}


async def test_an_account_does_not_make_room_for_itself(api: PlacementStore, aged: Aged) -> None:
    await api.place("a", ["T1"])
    await api.place("b", ["T1"])
    await aged("T1", a=3 * HOUR_MS, b=2 * HOUR_MS)
    assert await api.place("a", ["T1"], keep=[], capacity=1, idle_ms=HOUR_MS) == "T1"
    assert await on(api, "T1") == {"a"}
    assert await api.where_many(["a", "b"]) == {"a": "T1"}


async def test_use_is_recorded_but_places_nobody(
    api: PlacementStore, aged: Aged, admin: Redis
) -> None:
    await api.place("a", ["T1"])
    await api.place("b", ["T1"])
    placed = await api.sessions("T1")
    assert max(placed.values()) <= await aged.now_ms()
    await aged("T1", a=HOUR_MS, b=HOUR_MS)
    before = await api.sessions("T1")
    await api.touch({"a": before["a"] + 5, "b": before["b"] - 5, "gone": 7})
    assert await api.sessions("T1") == {"a": before["a"] + 5, "b": before["b"]}
    await api.touch({"b": 2**45})
    assert (await api.sessions("T1"))["b"] <= await aged.now_ms()
    await api.touch({})
    assert await api.where("gone") is None
    assert await admin.keys("*gone*") == []


async def test_idle_sessions_are_dropped(api: PlacementStore, aged: Aged) -> None:
    for account in "abc":
        await api.place(account, ["T1"])
    await aged("T1", a=HOUR_MS, b=2 * HOUR_MS)
    assert await api.drop_idle("T1", HOUR_MS) == ("b", "a")
    assert await api.drop_idle("T1", HOUR_MS) == ()
    assert await on(api, "T1") == {"c"}
    assert await api.where_many(["a", "b", "c"]) == {"c": "T1"}


async def test_an_account_is_moved_once_and_takes_its_age_along(
    api: PlacementStore, aged: Aged
) -> None:
    for account in "ab":
        await api.place(account, ["T1"])
    await aged("T1", a=HOUR_MS)
    used = (await api.sessions("T1"))["a"]
    assert not await api.move("a", "T2", "T3", capacity=1)
    assert await api.move("a", "T1", "T2", capacity=1)
    assert await api.sessions("T2") == {"a": used}
    assert await on(api, "T1") == {"b"}
    assert await api.where("a") == "T2"
    # Whoever lost the answer may ask again.
    assert await api.move("a", "T1", "T2", capacity=1)
    assert not await api.move("b", "T1", "T2", capacity=1)
    assert not await api.move("unknown", "T1", "T2", capacity=9)
    assert await api.where("b") == "T1"


async def test_of_many_moves_one_succeeds(api: PlacementStore) -> None:
    await api.place("a", ["T0"])
    targets = [f"T{number}" for number in range(1, 9)]
    moved = await asyncio.gather(*(api.move("a", "T0", one, capacity=1) for one in targets))
    assert sum(moved) == 1
    assert await api.where("a") == targets[moved.index(True)]
    assert sum((await api.counts(["T0", *targets])).values()) == 1


async def test_a_session_that_was_wiped_is_made_anew(
    api: PlacementStore, redis: Redis, keys: Keys
) -> None:
    await api.place("a", ["T1"])
    await redis.delete(keys.sessions("api", "T1"))
    assert await api.place("a", ["T1"]) == "T1"
    assert await on(api, "T1") == {"a"}


async def test_a_full_redis_leaves_placements_whole(
    api: PlacementStore, aged: Aged, admin: Redis
) -> None:
    for account in "ab":
        await api.place(account, ["T1"])
    await aged("T1", a=HOUR_MS)
    await admin.config_set("maxmemory", 1)
    try:
        for refused in (
            api.place("c", ["T1"], capacity=2, idle_ms=1),
            api.place("a", ["T2"]),
            api.move("a", "T1", "T2", capacity=2),
        ):
            with pytest.raises(StateUnavailable, match="full"):
                await refused
        assert await on(api, "T1") == {"a", "b"}
        assert await api.where_many(["a", "b", "c"]) == {"a": "T1", "b": "T1"}
        assert await api.drop_idle("T1", HOUR_MS) == ("a",)
        assert await api.remove("b")
    finally:
        await admin.config_set("maxmemory", 0)


class Chaos:
    """Random operations of several replicas at once, on a few terminals of small capacity."""

    terminals = ("T1", "T2", "T3")
    accounts = tuple(f"a{number}" for number in range(8))
    capacity = 2

    def __init__(self, api: PlacementStore, aged: Aged, seed: int) -> None:
        self._api = api
        self._aged = aged
        self._rng = random.Random(seed)

    async def step(self) -> None:
        api, rng = self._api, self._rng
        account, here, there = rng.choice(self.accounts), *rng.sample(self.terminals, 2)
        some = rng.sample(self.terminals, rng.randint(1, 3))
        idle = rng.choice([None, 1, HOUR_MS])
        match rng.randrange(7):
            case 0 | 1 | 2:
                keep = rng.choice([None, self.terminals, some])
                answer = await answer_of(
                    api.place(account, some, keep=keep, capacity=self.capacity, idle_ms=idle)
                )
                if isinstance(answer, str):
                    assert answer in {*some, *(keep or ())}
                else:
                    assert answer.retry_after_s is not None
                    assert answer.retry_after_s >= 1
            case 3:
                await api.move(account, here, there, capacity=self.capacity)
            case 4:
                await api.remove_if(account, rng.choice(["", here]))
            case 5:
                await self._aged(here, **{account: 2 * HOUR_MS})
            case _:
                await api.drop_idle(here, HOUR_MS)

    async def check(self) -> None:
        placed = await self._api.where_many(self.accounts)
        sessions = {one: await on(self._api, one) for one in self.terminals}
        assert sessions == {
            one: {account for account, terminal in placed.items() if terminal == one}
            for one in self.terminals
        }
        assert max(map(len, sessions.values())) <= self.capacity


@pytest.mark.parametrize("seed", range(4))
async def test_records_and_sessions_always_agree(
    api: PlacementStore, aged: Aged, seed: int
) -> None:
    chaos = Chaos(api, aged, seed)
    for _ in range(60):
        await asyncio.gather(*(chaos.step() for _ in range(4)))
        await chaos.check()
