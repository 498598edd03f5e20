"""Who polls an account, and what of its line outlives a move, a new lease or a Redis."""

import asyncio
from typing import Any

import msgspec
import pytest
import redis
from prometheus_client import CollectorRegistry
from tests.integration.websocket_pool.conftest import (
    Farm,
    Replica,
    eventually,
    receive,
    receive_until,
    running,
    until,
)
from tests.integration.websocket_pool.pairs import (
    first_message,
    held_by,
    holds_all,
    hurried,
    is_type,
    keep_leases,
    pair,
)

from local_stack.embedded import EmbeddedRedis
from mt5kit.domain.accounts import AccountIdentity, AccountState
from mt5kit.domain.instants import now_ms
from mt5kit.errors import StaleToken
from mt5kit.state.redis import LiveState, LiveStore, StateUnavailable
from mt5kit.telemetry.stream_metrics import StreamMetrics
from mt5kit.testing.fake_terminal import FakeStreamTerminal, make_position, make_snapshot
from websocket_pool.account_stream import DEAF_AFTER_S
from websocket_pool.channel import Caught, Channel
from websocket_pool.diff import Status, View

SOMEBODY_ELSE = AccountIdentity(99, "Demo")


def away(reason: str | None) -> Status:
    return Status(AccountState.TERMINAL_UNAVAILABLE, reason)


def states(replica: Replica) -> list[AccountState]:
    return [stream.channel.status.state for stream in replica.context.hub.streams]


def is_state(name: str) -> Any:
    return lambda message: message["data"].get("state") == name


async def test_who_comes_back_while_the_account_signs_in_is_let_in(
    farm: Farm, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    farm.account("acc-1")
    async with running(farm, redis_url, "ws-1", idle_s=0.05) as one:
        await holds_all(one)
        async with one.watch("acc-1") as client:
            greeting = await receive_until(client, is_type("snapshot"))
        await until(lambda: not one.context.hub.streams)
        signed_in = asyncio.Event()
        sign_in = FakeStreamTerminal.sign_in

        async def slow(*args: Any, **more: Any) -> Any:
            await signed_in.wait()
            return await sign_in(*args, **more)

        monkeypatch.setattr(FakeStreamTerminal, "sign_in", slow)
        ticket, at = greeting[0]["data"]["resume_ticket"], greeting[-1]
        query = f"ticket={ticket}&since={at['epoch']}:{at['seq']}"
        async with one.watch("acc-1", query) as client:
            assert (await receive(client))["type"] == "connected"
            signed_in.set()
            assert (await receive(client))["epoch"] > at["epoch"]


async def test_a_new_owner_takes_nobody_back_before_its_first_look(
    farm: Farm, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until then it stands where it last heard the old one, which told more before it died."""
    me = farm.account("acc-1")
    waits, signed_in = asyncio.Event(), asyncio.Event()
    sign_in = FakeStreamTerminal.sign_in

    async def slow(*args: Any, **more: Any) -> Any:
        waits.set()
        await signed_in.wait()
        return await sign_in(*args, **more)

    monkeypatch.setattr(FakeStreamTerminal, "sign_in", slow)
    await farm.placement.reserve("acc-1", ["S1"], 60)
    old = await farm.leases.acquire("S1", "old", 60_000)
    assert old is not None
    told = msgspec.json.encode(View(away(None)).looked(make_snapshot(me)))
    state = LiveState(old.token, 0, 1000, "S1", "old", b"look", told)
    await farm.live.publish("acc-1", old.token, state, ())
    async with running(farm, redis_url, "ws-1") as one, one.watch("acc-1") as client:
        assert (await receive_until(client, is_type("snapshot")))[-1]["epoch"] == old.token
        await farm.leases.release(old)
        async with asyncio.timeout(10):
            await waits.wait()
        query = f"ticket={await farm.ticket('acc-1')}&since={old.token}:6"
        async with one.watch("acc-1", query) as back:
            assert (await receive(back))["type"] == "error"
        signed_in.set()
        # The same ticket opens when there is something newer to tell.
        async with one.watch("acc-1", query) as back:
            assert (await receive(back))["epoch"] > old.token


async def test_after_redis_has_forgotten_nobody_polls_before_others_know(
    farm: Farm, redis_url: str, redis_server: EmbeddedRedis
) -> None:
    """What was forgotten may be that another terminal's owner still polls the account."""
    me = farm.account("acc-1")
    old = await farm.leases.acquire("S1", "old", 60_000)
    assert old is not None
    state = LiveState(old.token, 0, 1000, "S1", "old", b"look", b"told")
    async with running(farm, redis_url, "ws-1", settle_s=3600) as one:
        await until(lambda: "S2" in one.context.keeper.held)
        with redis.Redis.from_url(redis_server.admin_url) as admin:
            admin.flushall()
        await farm.placement.reserve("acc-1", ["S2"], 60)
        ticket = await farm.ticket("acc-1")
        watching = asyncio.create_task(first_message(one, f"ticket={ticket}"))
        await eventually(lambda: farm.redis.hget(farm.keys.live("acc-1"), "token"), bool)
        with pytest.raises(StaleToken):
            await farm.live.publish("acc-1", old.token, state, ())
        assert not farm.terminals["S2"].sign_ins
        watching.cancel()
    async with running(farm, redis_url, "ws-2", settle_s=3600) as two:
        await until(lambda: "S2" in two.context.keeper.held)
        run_id = (await farm.redis.info("server"))["run_id"]
        await farm.redis.set(farm.keys.memory(), f"{run_id} {now_ms() - 3_600_000}")
        async with two.watch("acc-1") as client:
            await receive_until(client, is_type("snapshot"))
        assert farm.terminals["S2"].sign_ins == [me]


async def test_an_account_that_logs_in_as_another_stays_on_its_terminal(
    farm: Farm, redis_url: str
) -> None:
    me = farm.account("acc-1")
    farm.account("acc-2", login=2)
    farm.terminals["S3"] = FakeStreamTerminal("S3", farm.passwords)
    for terminal in farm.terminals.values():
        terminal.answers_as[me] = SOMEBODY_ELSE
    async with running(farm, redis_url, "ws-1", move_after_s=0.1) as one:
        await holds_all(one)
        await farm.placement.reserve("acc-1", ["S1"], 60)
        await farm.placement.reserve("acc-2", ["S2"], 60)
        await farm.terminals["S2"].disturb(down=True)
        async with one.watch("acc-1"):
            await until(lambda: me in farm.terminals["S1"].sign_ins)
            # One that does leave its terminal, and came later.
            async with one.watch("acc-2") as client:
                await receive_until(client, is_type("snapshot"))
            assert await farm.placement.where("acc-2") == "S3"
            assert await farm.placement.where("acc-1") == "S1"
    assert [one.sign_ins.count(me) for one in farm.terminals.values()] == [1, 0, 0]


def test_a_line_without_a_look_takes_the_seq_of_a_status_that_it_was_told_before() -> None:
    channel = Channel("acc-1", StreamMetrics(CollectorRegistry()))
    told = msgspec.json.encode(View(away("A")))
    channel.catch_up(Caught(7, 1, told, ()))
    channel.catch_up(Caught(7, 3, told, ()))
    assert channel.place.seq == 3


async def test_a_line_without_a_look_goes_on_elsewhere_without_repeating_a_seq(
    farm: Farm, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    me = farm.account("acc-1")
    for terminal in farm.terminals.values():
        # Its login ends in another account: a look is never taken, and the feed rests.
        terminal.answers_as[me] = SOMEBODY_ELSE
    async with pair(farm, redis_url) as (one, two):
        await farm.placement.reserve("acc-1", [held_by(one)], 60)
        async with two.watch("acc-1") as far:
            await until(lambda: states(one) == states(two) == [AccountState.TERMINAL_UNAVAILABLE])
            [near], [follower] = one.context.hub.streams, two.context.hub.streams
            assert near.owner is not None
            stream, place = near.owner._stream, follower.channel.place
            first = stream.status.reason
            # What is relayed is lost, and its next look is far away.
            monkeypatch.setattr(follower, "relayed", lambda _: None)
            for reason in ("B", first):
                stream.trouble(away(reason))
                await until(lambda reason=reason: near.channel.status.reason == reason)  # type: ignore[misc]
            assert (near.channel.place.seq, follower.channel.place) == (place.seq + 2, place)
            await one.context.drain()
            await until(lambda: follower.owner is not None)
            assert follower.owner is not None
            assert follower.owner.epoch == place.epoch
            follower.owner._stream.trouble(away("C"))
            last = (await receive_until(far, lambda told: told["data"].get("reason") == "C"))[-1]
            assert (last["epoch"], last["seq"]) == (place.epoch, place.seq + 3)


async def test_a_terminal_that_is_gained_again_is_not_being_left(replica: Replica) -> None:
    hub, lease = replica.context.hub, replica.context.keeper.held["S1"]
    hub.lost("S1")
    await hub.losing("S1")
    assert not hub._parts.ours("S1")
    hub.gained(lease)
    assert hub._parts.ours("S1")


async def test_an_owner_without_a_look_is_heard_after_a_restart_of_redis(farm: Farm) -> None:
    live = farm.live
    first = await farm.leases.acquire("S1", "ws-1")
    assert first is not None
    state = LiveState(first.token, 3, 1000, "S1", "ws-1", b"look", b"told")
    await live.publish("acc-1", first.token, state, ())
    assert await live.hand_over("acc-1", first.token, first.token, 3, "S1")
    await farm.leases.release(first)
    second = await farm.leases.acquire("S1", "ws-2")
    assert second is not None
    assert (await live.take_over("acc-1", second.token, "S1")).taken
    # As an append-only file brings it back.
    await farm.redis.hset(farm.keys.live("acc-1"), "life", "another")
    assert await live.follow("acc-1", "ws-3", 0, 0) is None
    # What the second owner does while its terminal is away: it has had no look.
    mine = LiveState(first.token, 3, 0, "S1", "ws-2", b"", b"told")
    assert not await live.touch("acc-1", second.token, 0, "S1")
    await live.publish("acc-1", second.token, mine, ())
    assert await live.touch("acc-1", second.token, 0, "S1")
    assert await live.follow("acc-1", "ws-3", 0, 0) is not None


@pytest.mark.long
async def test_a_redis_that_comes_back_late_and_empty_costs_no_terminal(
    farm: Farm, redis_url: str, redis_server: EmbeddedRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    me = farm.account("acc-1")
    try:
        async with pair(farm, redis_url) as (one, two):
            home = held_by(two)
            keep_leases(monkeypatch, one, two)
            await farm.placement.reserve("acc-1", [home], 60)
            async with one.watch("acc-1") as far, two.watch("acc-1") as near:
                for client in (far, near):
                    await receive_until(client, is_type("snapshot"))
                await asyncio.to_thread(redis_server.stop)
                # An owner that is silent for so long would be believed to be gone.
                await asyncio.sleep(DEAF_AFTER_S + 1)
                await asyncio.to_thread(redis_server.start)
                await receive_until(far, is_state("connected"))
                await farm.terminals[home].show(make_snapshot(me, make_position(1)))
                told = (await receive_until(near, is_type("position_update")))[-1]
                assert (await receive_until(far, is_type("position_update")))[-1] == told
                where = await eventually(lambda: farm.placement.where("acc-1"), bool)
            assert where == home
            logins = {one.terminal_id: one.sign_ins for one in farm.terminals.values()}
            assert logins == {name: [me] if name == home else [] for name in logins}
    finally:
        await asyncio.to_thread(redis_server.start)


@pytest.mark.long
async def test_nobody_is_told_that_all_is_well_before_the_owner_is_heard(
    farm: Farm, redis_url: str, redis_server: EmbeddedRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    farm.account("acc-1")
    looks = 0
    follow = LiveStore.follow

    async def counted(*args: Any) -> Any:
        nonlocal looks
        found = await follow(*args)
        looks += 1
        return found

    async def unwritten(*_: object, **__: object) -> None:
        raise StateUnavailable("the state store does not answer")

    try:
        async with pair(farm, redis_url) as (one, two):
            await farm.placement.reserve("acc-1", [held_by(two)], 60)
            async with one.watch("acc-1") as far:
                await receive_until(far, is_type("snapshot"))
                keep_leases(monkeypatch, one, two)
                await asyncio.to_thread(redis_server.stop)
                assert (await receive(far))["data"]["state"] == "degraded"
                with monkeypatch.context() as owner_away:
                    owner_away.setattr(LiveStore, "follow", counted)
                    for name in ("publish", "touch"):
                        owner_away.setattr(LiveStore, name, unwritten)
                    await asyncio.to_thread(redis_server.start)
                    await hurried(one, lambda: looks > 3)
                    await far.send('{"type":"ping"}')
                    assert (await receive(far))["type"] == "pong"
                assert (await receive(far))["data"]["state"] == "connected"
    finally:
        await asyncio.to_thread(redis_server.start)
