import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
from redis.asyncio import Redis
from structlog.testing import capture_logs

from local_stack.embedded import EmbeddedRedis
from mt5kit.errors import TerminalUnavailable
from mt5kit.state.redis import (
    KeeperPlan,
    Keys,
    Lease,
    LeaseKeeper,
    LeaseStore,
    StateUnavailable,
    lease_keeper,
    open_redis,
)
from mt5kit.state.redis.keeper_plan import slot_of

TERMINALS = ("T1", "T2", "T3", "T4", "T5")


class Watched:
    """A keeper and what it told."""

    def __init__(self, redis: Redis, keys: Keys, owner: str, own: frozenset[str]) -> None:
        self.gained: list[Lease] = []
        self.lost: list[str] = []
        self.terminals = list(TERMINALS)
        plan = KeeperPlan("stream", owner, lambda: self.terminals, own=own, interval_s=0.01)
        self.keeper = LeaseKeeper(
            LeaseStore(redis, keys), plan, on_gained=self.gained.append, on_lost=self.lost.append
        )

    @property
    def held(self) -> set[str]:
        return set(self.keeper.held)


Make = Callable[..., Watched]


@pytest.fixture
async def make(redis: Redis, keys: Keys) -> AsyncIterator[Make]:
    made: list[Watched] = []

    def _make(owner: str, *own: str) -> Watched:
        made.append(Watched(redis, keys, owner, frozenset(own)))
        return made[-1]

    yield _make
    for one in made:
        await one.keeper.close()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


async def test_one_replica_takes_everything(make: Make) -> None:
    alone = make("a")
    await alone.keeper.round()
    assert alone.held == set(TERMINALS)
    assert alone.gained == list(alone.keeper.held.values())
    assert alone.keeper.token_of("T1") == alone.gained[0].token


async def test_two_replicas_share_and_hand_over(make: Make) -> None:
    first, second = make("a", "T4"), make("b", "T1")
    await first.keeper.round()
    await second.keeper.round()
    assert second.held == set()
    await first.keeper.round()
    assert len(first.held) == 3
    assert "T4" in first.held
    await second.keeper.round()
    assert len(second.held) == 2
    assert first.held | second.held == set(TERMINALS)
    assert set(first.lost) == second.held
    for lease in second.gained:
        before = next(one for one in first.gained if one.terminal_id == lease.terminal_id)
        assert lease.token > before.token

    await first.keeper.close()
    assert first.held == set()
    await second.keeper.round()
    assert second.held == set(TERMINALS)


async def test_its_own_terminals_are_taken_first(make: Make) -> None:
    first, second = make("a", "T3"), make("b", "T1", "T5")
    await first.keeper._store.announce("stream", "a", 10_000)
    await second.keeper.round()
    first_gained = [lease.terminal_id for lease in second.gained]
    assert set(first_gained[:2]) == {"T1", "T5"}
    # Where its turn begins; that it is another's own it cannot know.
    assert first_gained[2:] == ["T3"]
    await first.keeper.round()
    assert first.held == {"T2", "T4"}


async def test_its_own_terminals_are_given_back_last(make: Make) -> None:
    first, others = make("a", "T4", "T5"), [make("b"), make("c")]
    await first.keeper.round()
    for other in others:
        await other.keeper.round()
        await first.keeper.round()
    assert sorted(first.lost) == ["T1", "T2", "T3"]
    assert first.held == {"T4", "T5"}


async def test_a_terminal_that_is_given_up_is_free_and_not_taken_again_while_it_is_not_listed(
    make: Make,
) -> None:
    one, two = make("a"), make("b")
    for keeper in (one, two, one, two):
        await keeper.keeper.round()
    [given_up, *_] = one.held
    for each in (one, two):
        each.terminals.remove(given_up)
    # Unlike what the list has no more, it is held until it is given up.
    one.terminals.append(given_up)
    await one.keeper.round()
    assert given_up in one.held
    one.keeper.give_up(given_up)
    one.keeper.give_up(given_up)
    one.terminals.remove(given_up)
    await until(lambda: given_up in one.lost)
    assert await one.keeper._store.holder(given_up) is None
    for keeper in (one, two):
        await keeper.keeper.round()
    assert one.lost.count(given_up) == 1
    assert sorted(one.held | two.held) == sorted(one.terminals)
    one.keeper.give_up("nobody's")
    # Started anew.
    two.terminals.append(given_up)
    await two.keeper.round()
    assert given_up in two.held


def task(slot: int, letter: str) -> str:
    return f"mt5_websocket-pool.{slot}.{letter * 25}"


@pytest.mark.parametrize("slots", [1, 2, 3, 4])
async def test_an_update_that_starts_first_moves_each_terminal_once(make: Make, slots: int) -> None:
    before = {slot: make(task(slot, "a")) for slot in range(1, slots + 1)}
    for _ in range(2 * slots):
        for one in before.values():
            await one.keeper.round()
    for one in before.values():
        one.lost.clear()
    after: dict[int, Watched] = {}
    for slot, old in before.items():
        after[slot] = new = make(task(slot, "b"))
        others = [each for n, each in before.items() if n > slot] + list(after.values())[:-1]
        held = old.held
        for _ in range(2):
            for one in (new, old, *others):
                await one.keeper.round()
        assert (new.held, old.held) == (set(), held)
        await old.keeper.close()
        for one in (new, *others):
            await one.keeper.round()
        assert new.held == held
    assert sorted(lost for one in before.values() for lost in one.lost) == sorted(TERMINALS)
    assert not any(one.lost for one in after.values())


async def test_a_task_whose_predecessor_has_died_takes_its_place(make: Make, redis: Redis) -> None:
    old, other = make(task(1, "a")), make(task(2, "a"))
    for one in (old, other, old, other):
        await one.keeper.round()
    new = make(task(1, "b"))
    await new.keeper.round()
    held = old.held
    # It says nothing more, and its leases run out.
    await redis.zrem(Keys("mt5:test").replicas("stream"), task(1, "a"))
    for terminal in held:
        await redis.delete(Keys("mt5:test").lease(terminal))
    await new.keeper.round()
    assert new.held == held
    assert not other.lost[2:]


def test_a_slot_is_known_by_the_name_of_its_task() -> None:
    assert slot_of("mt5_api-pool.1.k3j2n8m4p0q7r1s5t9v2w6x8z") == "mt5_api-pool.1"
    assert slot_of("mt5_api-pool.12.k3j2n8m4p0q7r1s5t9v2w6x8z") == "mt5_api-pool.12"
    for other in ("api-1", "mt5_api-pool.1", "a.1.b", "mt5_api-pool.1.K3J2N8M4P0Q7R1S5T9V2W6X8Z"):
        assert slot_of(other) == other


async def test_a_terminal_that_no_longer_exists_is_given_back(make: Make) -> None:
    alone = make("a")
    await alone.keeper.round()
    alone.terminals.remove("T5")
    await alone.keeper.round()
    assert alone.lost == ["T5"]
    assert await alone.keeper._store.holder("T5") is None


async def test_a_terminal_taken_by_another_is_dropped(make: Make, admin: Redis) -> None:
    alone = make("a")
    await alone.keeper.round()
    await admin.flushall()
    await alone.keeper._store.acquire("T2", "thief")
    await alone.keeper.round()
    assert alone.lost == ["T2"]
    with pytest.raises(TerminalUnavailable) as refused:
        alone.keeper.token_of("T2")
    assert refused.value.retry_after_s


async def test_who_comes_first_to_an_emptied_redis_takes_nothing_of_the_others(
    make: Make, admin: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = make("a"), make("b")
    # Rounds are run by hand: no time passes between them.
    monkeypatch.setattr(lease_keeper, "_RETURN_ROUNDS", 1e9)
    one.keeper._had_others = two.keeper._had_others = False
    for each in (one, two, one, two):
        await each.keeper.round()
    held = dict(one.keeper.held), dict(two.keeper.held)
    assert all(held)
    monkeypatch.setattr(lease_keeper, "_RETURN_ROUNDS", -1)
    for each in (one, two):
        await each.keeper.round()
    monkeypatch.setattr(lease_keeper, "_RETURN_ROUNDS", 1e9)
    await admin.flushall()
    for each in (one, one, two, one, two):
        await each.keeper.round()
    assert (dict(one.keeper.held), dict(two.keeper.held)) == held
    # One of them does not come back, and that is known after a while.
    await admin.flushall()
    await one.keeper.round()
    monkeypatch.setattr(lease_keeper, "_RETURN_ROUNDS", -1)
    await one.keeper.round()
    assert one.held == set(TERMINALS)


async def test_a_reissued_token_is_higher_and_renewed(make: Make) -> None:
    alone = make("a")
    await alone.keeper.round()
    before = alone.keeper.token_of("T1")
    after = await alone.keeper.reissue("T1")
    assert after > before
    await alone.keeper.round()
    assert alone.keeper.token_of("T1") == after
    assert alone.lost == []


async def test_it_keeps_what_it_has_while_redis_is_away_and_says_so_once(
    redis_server: EmbeddedRedis, redis_url: str, keys: Keys
) -> None:
    client = open_redis(redis_url)
    watched = Watched(client, keys, "a", frozenset())
    try:
        with capture_logs() as logs:
            watched.keeper.start()
            await until(lambda: len(watched.held) == len(TERMINALS))
            tokens = dict(watched.keeper.held)
            await asyncio.to_thread(redis_server.stop)
            await until(lambda: any(line["event"] == "leases_kept_without_redis" for line in logs))
            for _ in range(3):
                with pytest.raises(StateUnavailable):
                    await watched.keeper.round()
            await asyncio.to_thread(redis_server.start)
            await until(lambda: any(line["event"] == "leases_renewed_again" for line in logs))
        assert dict(watched.keeper.held) == tokens
        assert watched.lost == []
        assert sum(line["event"] == "leases_kept_without_redis" for line in logs) == 1
    finally:
        await watched.keeper.close()
        await client.aclose()
        await asyncio.to_thread(redis_server.start)
