"""Stores that replicas tell each other through every second: demand, shares, logins, the board."""

import asyncio
import math
import random

import msgspec
import pytest
from redis.asyncio import Redis

from mt5kit.state.redis import (
    BoardStore,
    DemandStore,
    Keys,
    LoginBudgetStore,
    ShareStore,
    TerminalEntry,
)
from mt5kit.state.redis import shares as shares_module


@pytest.fixture
def shares(redis: Redis, keys: Keys) -> ShareStore:
    return ShareStore(redis, keys)


@pytest.fixture
def logins(redis: Redis, keys: Keys) -> LoginBudgetStore:
    return LoginBudgetStore(redis, keys)


@pytest.fixture
def board(redis: Redis, keys: Keys) -> BoardStore:
    return BoardStore(redis, keys)


async def test_demand_is_added_up_and_taken_once(redis: Redis, admin: Redis, keys: Keys) -> None:
    demand = DemandStore(redis, keys)
    await demand.add({"T1": {"a": 2, "b": 1}, "T2": {"c": 5}, "T3": {}})
    await demand.add({"T2": {"d": 1}, "T1": {"a": 3}})
    await demand.add({})
    assert 0 < await redis.pttl(keys.demand("T1")) <= 60_000
    assert await demand.take(["T1", "T3"]) == {"T1": {"a": 5, "b": 1}, "T3": {}}
    assert await demand.take(["T1", "T2"]) == {"T1": {}, "T2": {"c": 5, "d": 1}}
    assert await demand.take([]) == {}
    assert await admin.keys("*") == []


async def test_no_read_is_taken_twice_or_lost(redis: Redis, keys: Keys) -> None:
    demand = DemandStore(redis, keys)
    takes = await asyncio.gather(
        *(
            demand.take(["T1"]) if number % 3 == 0 else demand.add({"T1": {"a": 1}})
            for number in range(90)
        )
    )
    taken = [*filter(None, takes), await demand.take(["T1"])]
    assert sum(one["T1"].get("a", 0) for one in taken) == 60


async def test_a_replica_alone_has_the_whole_rate(shares: ShareStore) -> None:
    demands = {"x": 0.0, "y": 3.0, "z": 50.0}
    assert await shares.share("key", "a", demands, 10) == dict.fromkeys("xyz", 10.0)
    assert await shares.share("key", "a", {}, 10) == {}


async def test_small_demands_are_met_and_large_ones_share(shares: ShareStore) -> None:
    for _ in range(2):
        grants = {
            replica: (await shares.share("key", replica, {"x": demand}, 10))["x"]
            for replica, demand in (("a", 1.0), ("b", 20.0), ("c", 7.0))
        }
    assert grants == pytest.approx({"a": 1, "b": 4.5, "c": 4.5})
    # Where there is enough for everybody, the rest is divided equally.
    assert await shares.share("key", "b", {"x": 2}, 16) == pytest.approx({"x": 2 + 6 / 3})
    # Rates of other kinds and callers are others.
    assert await shares.share("account", "b", {"x": 2}, 16) == {"x": 16}
    assert await shares.share("key", "b", {"y": 2}, 16) == {"y": 16}


@pytest.mark.parametrize("seed", range(5))
async def test_grants_add_up_to_the_rate(shares: ShareStore, seed: int) -> None:
    rng = random.Random(seed)
    rate, callers = rng.uniform(0.1, 100), [f"c{number}" for number in range(20)]
    demands = {
        f"r{number}": {caller: rng.choice([0, rng.expovariate(4 / rate)]) for caller in callers}
        for number in range(rng.randint(1, 6))
    }
    for _ in range(2):
        grants = [
            await shares.share("key", replica, wanted, rate) for replica, wanted in demands.items()
        ]
    for caller in callers:
        assert math.fsum(grant[caller] for grant in grants) == pytest.approx(rate, rel=1e-4)
        wanted = [one[caller] for one in demands.values()]
        fair = rate / len(wanted)
        for grant, demand in zip(grants, wanted, strict=True):
            assert grant[caller] >= min(demand, fair) * (1 - 1e-4)


async def test_replicas_that_ask_no_more_are_forgotten(
    shares: ShareStore, redis: Redis, keys: Keys
) -> None:
    await shares.share("key", "a", {"x": 9}, 10)
    await redis.hset(keys.share("key", "x"), "a", "9 1000")
    assert await shares.share("key", "b", {"x": 9}, 10) == {"x": 10}
    assert await redis.hkeys(keys.share("key", "x")) == [b"b"]
    assert 0 < await redis.pttl(keys.share("key", "x")) <= 3_000


async def test_many_callers_take_several_scripts(
    shares: ShareStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shares_module, "CALLERS_PER_SCRIPT", 3)
    demands = {f"c{number}": float(number) for number in range(8)}
    assert await shares.share("key", "a", demands, 4) == dict.fromkeys(demands, 4.0)
    assert (await shares.share("key", "b", demands, 4))["c7"] == 2.0


@pytest.mark.parametrize("wrong", [-1.0, math.nan])
async def test_demands_and_rates_are_numbers_from_0(shares: ShareStore, wrong: float) -> None:
    with pytest.raises(ValueError, match="numbers"):
        await shares.share("key", "a", {"x": 1, "y": wrong}, 10)
    with pytest.raises(ValueError, match="numbers"):
        await shares.share("key", "a", {"x": 1}, wrong)


async def taken(logins: LoginBudgetStore, per_minute: float, *, spare: bool) -> int:
    """Logins granted until the first refusal."""
    for granted in range(100):
        if await logins.take("Demo", per_minute, spare=spare):
            return granted
    raise AssertionError("there is no limit")


async def test_a_burst_is_granted_and_a_quarter_of_it_is_spared(
    logins: LoginBudgetStore, redis: Redis, keys: Keys
) -> None:
    # So slow that nothing comes back during the test: 10 s' worth is below one login.
    assert await taken(logins, 0.01, spare=True) == 1
    assert await taken(logins, 0.01, spare=False) == 0
    wait_s = await logins.take("Demo", 0.01, spare=False)
    assert 5_900 < wait_s <= 6_000
    assert 5_900_000 < await redis.pttl(keys.logins("Demo")) <= 6_000_000
    assert await logins.take("Other", 0.01, spare=False) == 0


async def test_the_burst_is_ten_seconds_worth(
    logins: LoginBudgetStore, redis: Redis, keys: Keys
) -> None:
    per_minute, between_us = 60.0, 1_000_000

    async def used(logins_ago: float) -> None:
        """As if so many logins of the burst of ten had been taken just now."""
        seconds, micros = await redis.time()
        full_at = int(seconds) * 1_000_000 + int(micros) + round(logins_ago * between_us)
        await redis.set(keys.logins("Demo"), full_at)

    await used(6.4)
    assert await logins.take("Demo", per_minute, spare=True) == 0
    await used(8.9)
    assert 0 < await logins.take("Demo", per_minute, spare=True) <= 2.4
    assert await logins.take("Demo", per_minute, spare=False) == 0
    await used(30)
    assert 0 < await logins.take("Demo", per_minute, spare=False) <= 21


async def test_of_many_logins_at_once_the_burst_is_granted(logins: LoginBudgetStore) -> None:
    # A burst of two, and the next one only after five seconds.
    waits = await asyncio.gather(*(logins.take("Demo", 12, spare=False) for _ in range(50)))
    assert waits.count(0.0) == 2


async def test_after_the_wait_a_login_is_granted(
    logins: LoginBudgetStore, redis: Redis, keys: Keys
) -> None:
    await taken(logins, 6, spare=False)
    wait_s = await logins.take("Demo", 6, spare=False)
    full_at = int(await redis.get(keys.logins("Demo")) or 0)
    await redis.set(keys.logins("Demo"), full_at - round(wait_s * 1e6))
    assert await logins.take("Demo", 6, spare=False) == 0


@pytest.mark.parametrize("wrong", [0.0, -1.0, math.nan])
async def test_no_budget_is_a_mistake(logins: LoginBudgetStore, wrong: float) -> None:
    with pytest.raises(ValueError, match="above 0"):
        await logins.take("Demo", wrong, spare=False)


async def test_the_board_says_what_owners_said_last(
    board: BoardStore, redis: Redis, keys: Keys
) -> None:
    assert await board.read() == {}
    first = TerminalEntry("a", True, 1_700_000_000_123, None, 0, at_ms=7)
    other = TerminalEntry("b", False, 1_700_000_000_000, 1_500, 3)
    await board.publish({"T1": first, "T2": other})
    await board.publish({"T1": msgspec.structs.replace(first, waiting=2)})
    await board.publish({})
    seconds, _ = await redis.time()
    read = await board.read()
    assert all(abs(entry.at_ms - int(seconds) * 1000) < 60_000 for entry in read.values())
    assert {
        terminal: msgspec.structs.replace(entry, at_ms=0) for terminal, entry in read.items()
    } == {"T1": TerminalEntry("a", True, 1_700_000_000_123, None, 2), "T2": other}
    assert await BoardStore(redis, keys, "market").read() == {}
    assert 0 < await redis.pttl(keys.board("api")) <= 60_000


async def test_terminals_nobody_speaks_of_leave_the_board(
    board: BoardStore, redis: Redis, keys: Keys
) -> None:
    entry = TerminalEntry("a", True, 1, None, 0)
    await board.publish({"T1": entry, "T2": entry})
    [stored] = await redis.hmget(keys.board("api"), ["T1"])
    assert isinstance(stored, bytes)
    at_ms, _, rest = stored.partition(b" ")
    await redis.hset(keys.board("api"), "T1", b"%d %s" % (int(at_ms) - 61_000, rest))
    assert set(await board.read()) == {"T2"}
    assert await redis.hkeys(keys.board("api")) == [b"T2"]
