"""Several replicas and one account: whichever serves a socket, it is told the same line."""

import asyncio
from typing import Any

import pytest
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
    is_type,
    keep_leases,
    pair,
    rest_of,
)

from local_stack.embedded import EmbeddedRedis
from mt5kit.domain.accounts import AccountIdentity
from mt5kit.state.redis import LiveStore
from mt5kit.testing.fake_terminal import make_position, make_snapshot


async def share(*replicas: Replica) -> None:
    """Until each has the same number of terminals."""
    terminals = len(replicas[0].farm.terminals)
    each = terminals // len(replicas)
    await until(lambda: all(len(one.context.keeper.held) == each for one in replicas))


async def show(farm: Farm, me: AccountIdentity, *tickets: int) -> None:
    terminal = await farm.terminal_of("acc-1")
    await terminal.show(make_snapshot(me, *map(make_position, tickets)))


async def test_any_replica_serves_any_account_from_one_poll(farm: Farm, redis_url: str) -> None:
    me = farm.account("acc-1")
    async with pair(farm, redis_url) as (one, two):
        await farm.placement.reserve("acc-1", [held_by(two)], 60)
        async with one.watch("acc-1") as far, two.watch("acc-1") as near:
            first = [(await receive_until(each, is_type("snapshot")))[-1] for each in (far, near)]
            assert first[0] == first[1]
            for step in range(1, 4):
                await show(farm, me, *range(step))
                assert await receive(far) == await receive(near)
            terminal = await farm.terminal_of("acc-1")
            assert terminal.most_polls == 1
            assert terminal.sign_ins == [me]
            assert [one.metric("ws_active_accounts"), two.metric("ws_active_accounts")] == [0, 1]
            # What reaches a socket by way of Redis is timed, too.
            assert one.metric("ws_delivery_latency_seconds_count") == 3


async def test_a_stream_goes_on_for_a_watcher_elsewhere_and_ends_without(
    farm: Farm, redis_url: str
) -> None:
    me = farm.account("acc-1")
    async with pair(farm, redis_url, idle_s=0.1) as (one, two):
        await farm.placement.reserve("acc-1", [held_by(two)], 60)
        async with one.watch("acc-1") as far:
            await receive_until(far, is_type("snapshot"))
            # Longer than the owner waits for watchers.
            await asyncio.sleep(0.3)
            await show(farm, me, 1)
            assert (await receive(far))["seq"] == 1
        await eventually(lambda: farm.placement.where("acc-1"), lambda where: where is None)
        assert two.metric("ws_active_accounts") == 0


async def test_who_comes_back_to_another_replica_misses_nothing(farm: Farm, redis_url: str) -> None:
    me = farm.account("acc-1")
    async with pair(farm, redis_url) as (one, two):
        await farm.placement.reserve("acc-1", [held_by(two)], 60)
        async with two.watch("acc-1") as stays:
            async with two.watch("acc-1") as client:
                greeting = await receive_until(client, is_type("snapshot"))
            await receive_until(stays, is_type("snapshot"))
            missed = []
            for ticket in (1, 2, 3):
                await show(farm, me, ticket)
                missed.append(await receive(stays))
            await eventually(lambda: farm.live.read("acc-1"), lambda live: bool(live and live.seq))
            ticket, at = greeting[0]["data"]["resume_ticket"], greeting[-1]
            query = f"ticket={ticket}&since={at['epoch']}:{at['seq']}"
            async with one.watch("acc-1", query) as client:
                assert (await receive(client))["data"]["resumed"] is True
                assert [await receive(client) for _ in missed] == missed


async def test_a_terminal_that_changes_hands_interrupts_nobody(farm: Farm, redis_url: str) -> None:
    me = farm.account("acc-1")
    async with running(farm, redis_url, "ws-1") as one:
        await until(lambda: len(one.context.keeper.held) == 2)
        await farm.placement.reserve("acc-1", ["S2"], 60)
        async with one.watch("acc-1") as client:
            before = (await receive_until(client, is_type("snapshot")))[-1]
            await show(farm, me, 1)
            assert (await receive(client))["seq"] == 1
            async with running(farm, redis_url, "ws-2", own=frozenset({"S2"})) as two:
                await share(one, two)
                await until(lambda: two.metric("ws_active_accounts") == 1)
                await show(farm, me, 1, 2)
                opened = await receive(client)
                assert (opened["epoch"], opened["seq"]) == (before["epoch"], 2)
                assert [row["ticket"] for row in opened["data"]["opened"]] == [2]
            # Back again: a clean stop hands over as well.
            await until(lambda: one.metric("ws_active_accounts") == 1)
            await show(farm, me, 2)
            closed = await receive(client)
            assert (closed["epoch"], closed["seq"]) == (before["epoch"], 3)
        terminal = await farm.terminal_of("acc-1")
        assert terminal.most_polls == 1


async def test_draining_hands_over_first_and_sends_the_sockets_away(
    farm: Farm, redis_url: str
) -> None:
    me = farm.account("acc-1")
    async with pair(farm, redis_url, drain_s=0.2) as (one, two):
        await farm.placement.reserve("acc-1", [held_by(one)], 60)
        async with one.watch("acc-1") as client:
            greeting = await receive_until(client, is_type("snapshot"))
            draining = asyncio.create_task(one.context.drain())
            await until(lambda: two.metric("ws_active_accounts") == 1)
            # It still lets sockets in, since somebody may still send them.
            async with one.watch("acc-1") as late:
                assert (await receive_until(late, is_type("snapshot")))[-1]["seq"] == 0
                await show(farm, me, 1)
                assert (await receive(late))["seq"] == 1
                rest = await rest_of(client)
            assert [message["seq"] for message in rest] == [1]
            assert client.close_code == 1012
            assert "reconnect after" in str(client.close_reason)
            await draining
        place = f"{rest[-1]['epoch']}:{rest[-1]['seq']}"
        query = f"ticket={greeting[0]['data']['resume_ticket']}&since={place}"
        async with two.watch("acc-1", query) as client:
            assert (await receive(client))["data"]["resumed"] is True
            await show(farm, me, 1, 2)
            opened = await receive(client)
            assert (opened["epoch"], opened["seq"]) == (rest[-1]["epoch"], 2)


async def test_nobody_is_taken_back_behind_what_he_was_told(farm: Farm, redis_url: str) -> None:
    me = farm.account("acc-1")
    async with pair(farm, redis_url) as (one, two):
        await farm.placement.reserve("acc-1", [held_by(two)], 60)
        async with two.watch("acc-1") as near:
            at = (await receive_until(near, is_type("snapshot")))[-1]
            # What one was told by an owner that died before it could publish.
            ahead = f"ticket={await farm.ticket('acc-1')}&since={at['epoch']}:5"
            async with one.watch("acc-1", ahead) as far:
                error = await receive(far)
                assert (error["type"], error["data"]["retry_after_s"]) == ("error", 1)
                await rest_of(far)
                assert far.close_code == 1013
            # It is heard of meanwhile: then the same ticket opens.
            opening = asyncio.create_task(first_message(one, ahead))
            for step in range(1, 6):
                await show(farm, me, *range(step))
                await receive(near)
            assert (await opening)["data"]["resumed"] is True
            # Who polls knows that there is no such message, and nobody has come from the future.
            for since in (f"{at['epoch']}:99", f"{at['epoch'] * 2}:1"):
                query = f"ticket={await farm.ticket('acc-1')}&since={since}"
                assert (await first_message(two, query))["data"]["resumed"] is False


async def test_an_owner_that_said_its_last_word_takes_nobody_back(
    farm: Farm, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has handed over and was stopped before it knew; its lease runs out meanwhile."""
    me = farm.account("acc-1")
    hand_over, said, woken = LiveStore.hand_over, asyncio.Event(), asyncio.Event()

    async def answered_late(store: LiveStore, *args: Any) -> bool:
        handed = await hand_over(store, *args)
        said.set()
        await woken.wait()
        return handed

    monkeypatch.setattr(LiveStore, "hand_over", answered_late)
    async with running(farm, redis_url, "ws-1") as one:
        await until(lambda: len(one.context.keeper.held) == 2)
        await farm.placement.reserve("acc-1", ["S2"], 60)
        async with one.watch("acc-1") as client:
            at = (await receive_until(client, is_type("snapshot")))[-1]
        async with running(farm, redis_url, "ws-2", own=frozenset({"S2"})) as two:
            await said.wait()
            while "S2" not in two.context.keeper.held:
                await farm.redis.delete(farm.keys.lease("S2"))
                await asyncio.sleep(0.005)
            async with two.watch("acc-1") as client:
                again = (await receive_until(client, is_type("snapshot")))[-1]
                assert again["epoch"] == at["epoch"]
                await show(farm, me, 1)
                told = (await receive_until(client, is_type("position_update")))[-1]
                assert (told["epoch"], told["seq"]) == (at["epoch"], 1)
                since = f"ticket={await farm.ticket('acc-1')}&since={at['epoch']}:1"
                assert (await first_message(one, since))["type"] == "error"
            woken.set()


@pytest.mark.long
async def test_an_account_leaves_a_terminal_that_does_not_answer(
    farm: Farm, redis_url: str
) -> None:
    me = farm.account("acc-1")
    async with pair(farm, redis_url, move_after_s=0.2) as (one, two):
        await farm.placement.reserve("acc-1", [held_by(one)], 60)
        async with one.watch("acc-1") as client:
            before = (await receive_until(client, is_type("snapshot")))[-1]
            await (await farm.terminal_of("acc-1")).disturb(down=True)
            status = await receive(client)
            assert status["data"]["state"] == "terminal_unavailable"
            back = (await receive_until(client, is_type("status")))[-1]
            assert back["data"]["state"] == "connected"
            assert (back["epoch"], back["seq"]) == (before["epoch"], 2)
            assert await farm.placement.where("acc-1") == held_by(two)
            await show(farm, me, 1)
            assert (await receive_until(client, is_type("position_update")))[-1]["seq"] == 3


@pytest.mark.long
async def test_who_hears_nothing_says_so_and_goes_on_without_a_gap(
    farm: Farm, redis_url: str, redis_server: EmbeddedRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    me = farm.account("acc-1")
    try:
        async with pair(farm, redis_url) as (one, two):
            keep_leases(monkeypatch, one, two)
            await farm.placement.reserve("acc-1", [held_by(two)], 60)
            async with one.watch("acc-1") as far, two.watch("acc-1") as near:
                for client in (far, near):
                    snapshot = (await receive_until(client, is_type("snapshot")))[-1]
                terminal = await farm.terminal_of("acc-1")
                await asyncio.to_thread(redis_server.stop)
                deaf = await receive(far)
                assert (deaf["type"], deaf["data"]["state"]) == ("status", "degraded")
                assert (deaf["epoch"], deaf["seq"]) == (snapshot["epoch"], 0)
                async with asyncio.timeout(10):
                    await terminal.show(make_snapshot(me, make_position(1)))
                told = await receive(near)
                assert told["seq"] == 1
                await asyncio.to_thread(redis_server.start)
                rest = await receive_until(far, lambda one: one["data"].get("state") == "connected")
                assert told in rest
                assert [one["seq"] for one in rest] == sorted(one["seq"] for one in rest)
    finally:
        await asyncio.to_thread(redis_server.start)
