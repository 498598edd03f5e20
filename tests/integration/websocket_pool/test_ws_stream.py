import itertools
import json
from typing import Any

import msgspec
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
from websockets.exceptions import ConnectionClosed

from mt5kit.domain.snapshots import Snapshot
from mt5kit.errors import StaleToken, WrongAccount
from mt5kit.secret import Secret
from mt5kit.state.redis import Control, LiveState
from mt5kit.terminal.credentials import Credentials
from mt5kit.testing.fake_terminal import make_order, make_position, make_snapshot
from websocket_pool.line import RING_BYTES
from websocket_pool.mailbox import BACKLOG_BYTES
from websocket_pool.session import SessionRules

STATE = {"status", "position_update", "order_update", "account_update"}


def is_type(name: str) -> Any:
    return lambda message: message["type"] == name


def is_login_failed(message: dict[str, Any]) -> bool:
    data = message["data"]
    return "login_failed" in (data.get("state"), data.get("status", {}).get("state"))


async def test_connected_then_snapshot_then_numbered_updates(replica: Replica) -> None:
    me = replica.farm.account("acc-1")
    async with replica.watch("acc-1") as client:
        connected, snapshot = await receive(client), await receive(client)
        assert connected["type"] == "connected"
        assert connected["data"]["instance_id"] == "ws-1"
        assert connected["data"]["heartbeat_s"] == 15
        assert connected["data"]["resumed"] is False
        assert connected["data"]["resume_ticket"]
        assert snapshot["type"] == "snapshot"
        assert snapshot["account_id"] == "acc-1"
        assert snapshot["seq"] == 0
        assert snapshot["data"]["account"]["login"] == me.login
        assert len(snapshot["data"]["account"]) == 28
        terminal = await replica.farm.terminal_of("acc-1")
        await terminal.show(make_snapshot(me, make_position(1)))
        opened = await receive(client)
        assert (opened["type"], opened["seq"]) == ("position_update", 1)
        assert opened["epoch"] == snapshot["epoch"] < 2**53
        assert [row["ticket"] for row in opened["data"]["opened"]] == [1]
        assert opened["data"]["positions"][0]["time_utc"].endswith("Z")
        await terminal.show(
            msgspec.structs.replace(
                make_snapshot(me, make_position(1, profit=5.0)), orders=(make_order(9),)
            )
        )
        placed, moved = await receive(client), await receive(client)
        assert (placed["type"], placed["seq"]) == ("order_update", 2)
        assert [row["ticket"] for row in placed["data"]["placed"]] == [9]
        assert (moved["type"], moved["seq"]) == ("position_update", 3)
        assert moved["data"]["opened"] == moved["data"]["modified"] == []
        assert moved["data"]["positions"][0]["profit"] == 5.0


async def test_three_watchers_one_poll(replica: Replica) -> None:
    me = replica.farm.account("acc-1")
    async with (
        replica.watch("acc-1") as a,
        replica.watch("acc-1") as b,
        replica.watch("acc-1") as c,
    ):
        clients = (a, b, c)
        for client in clients:
            await receive_until(client, is_type("snapshot"))
        terminal = await replica.farm.terminal_of("acc-1")
        await terminal.show(make_snapshot(me, make_position(1)))
        texts = [json.dumps(await receive(client)) for client in clients]
        assert texts[0] == texts[1] == texts[2]
        assert terminal.most_polls == 1
        assert terminal.sign_ins == [me]
        assert replica.metric("ws_active_connections") == 3
        assert replica.metric("ws_active_accounts") == 1
    await until(lambda: replica.metric("ws_active_connections") == 0)
    assert replica.metric("ws_messages_sent_total", type="position_update") == 3
    assert replica.metric("ws_delivery_latency_seconds_count") == 3
    assert replica.metric("ws_closed_total", code="1000") == 3


async def test_ping_refresh_and_nonsense(replica: Replica) -> None:
    replica.farm.account("acc-1")
    async with replica.watch("acc-1") as client:
        await receive_until(client, is_type("snapshot"))
        await client.send('{"type":"ping"}')
        assert (await receive(client))["type"] == "pong"
        await client.send('{"type":"refresh"}')
        assert (await receive(client))["type"] == "snapshot"
        for said in ("nonsense", b"\0", '{"type":"auth","ticket":"x"}', "[]", "{}"):
            await client.send(said)
            error = await receive(client)
            assert error["type"] == "error"
            assert set(error["data"]) == {"code", "message", "retry_after_s"}
        with pytest.raises(ConnectionClosed):
            await receive(client)
        assert client.close_code == 4400


async def test_messages_over_4_kib_close_1009(replica: Replica) -> None:
    replica.farm.account("acc-1")
    async with replica.watch("acc-1") as client:
        await receive_until(client, is_type("snapshot"))
        await client.send(json.dumps({"type": "ping", "pad": "x" * 5000}))
        with pytest.raises(ConnectionClosed):
            await receive_until(client, lambda _: False)
        assert client.close_code == 1009


async def test_silence_brings_heartbeats(farm: Farm, redis_url: str) -> None:
    farm.account("acc-1")
    async with running(
        farm, redis_url, "ws-1", rules=SessionRules("ws-1", heartbeat_s=0.05)
    ) as one:
        await until(lambda: len(one.context.keeper.held) == 2)
        async with one.watch("acc-1") as client:
            beat = (await receive_until(client, is_type("heartbeat")))[-1]
            assert beat["seq"] == 0
            assert beat["data"]["resume_ticket"]


async def test_a_busy_account_hears_of_its_ticket_too(farm: Farm, redis_url: str) -> None:
    me = farm.account("acc-1")
    rules = SessionRules("ws-1", heartbeat_s=600, ticket_s=0.3)
    async with running(farm, redis_url, "ws-1", rules=rules) as one:
        await until(lambda: len(one.context.keeper.held) == 2)
        async with one.watch("acc-1") as client:
            taken = await receive_until(client, is_type("snapshot"))
            terminal = await farm.terminal_of("acc-1")
            beats: list[dict[str, Any]] = []
            for ticket in range(1, 100):
                await terminal.show(make_snapshot(me, make_position(ticket)))
                taken += await receive_until(client, is_type("position_update"))
                beats = [one for one in taken if one["type"] == "heartbeat"]
                if len(beats) > 1:
                    break
    assert beats[0]["data"]["resume_ticket"] == taken[0]["data"]["resume_ticket"]
    # It stands where the line did when it was sent.
    for before, beat in itertools.pairwise(taken):
        assert beat["type"] != "heartbeat" or beat["seq"] == before["seq"]


async def test_terminal_trouble_is_told_and_mends_itself(replica: Replica) -> None:
    me = replica.farm.account("acc-1")
    async with replica.watch("acc-1") as client:
        await receive_until(client, is_type("snapshot"))
        terminal = await replica.farm.terminal_of("acc-1")
        await terminal.disturb(down=True)
        lost = await receive(client)
        assert lost["type"] == "status"
        assert lost["data"] == {"state": "terminal_unavailable", "reason": "the terminal is away"}
        await terminal.disturb()
        await terminal.show(make_snapshot(me, make_position(1)))
        back = await receive_until(client, is_type("position_update"))
        assert back[0]["data"]["state"] == "connected"
        assert [one["seq"] for one in (lost, *back)] == list(range(1, len(back) + 2))
        await terminal.disturb(fault=WrongAccount("somebody else is logged in"))
        await until(lambda: len(terminal.sign_ins) == 3)
        await terminal.show(make_snapshot(me, make_position(2)))
        await receive_until(client, is_type("position_update"))


async def test_a_lost_broker_is_told(replica: Replica) -> None:
    me = replica.farm.account("acc-1")

    def online(connected: bool) -> Snapshot:
        look = make_snapshot(me)
        return msgspec.structs.replace(
            look, terminal=msgspec.structs.replace(look.terminal, connected=connected)
        )

    async with replica.watch("acc-1") as client:
        await receive_until(client, is_type("snapshot"))
        terminal = await replica.farm.terminal_of("acc-1")
        await terminal.show(online(False))
        assert (await receive(client))["data"]["state"] == "broker_disconnected"
        await terminal.show(online(True))
        assert (await receive(client))["data"]["state"] == "connected"


async def test_refused_credentials_are_tried_once_until_others_come(replica: Replica) -> None:
    farm = replica.farm
    me = farm.account("acc-1")
    farm.credentials.store("acc-1", Credentials(me, Secret("wrong")))
    async with replica.watch("acc-1") as client:
        # Told by its message, or to a late comer in `connected`.
        refused = (await receive_until(client, is_login_failed))[-1]
        assert refused["seq"] <= 1
        terminal = await farm.terminal_of("acc-1")
        assert terminal.sign_ins == [me]
        await until(lambda: farm.credentials.refusals == ["acc-1"])
        async with replica.watch("acc-1") as other:
            greeting, error = await receive(other), await receive(other)
            assert greeting["data"]["status"]["state"] == "login_failed"
            assert (error["type"], error["data"]["code"]) == ("error", "MT5_LOGIN_FAILED")
        assert terminal.sign_ins == [me]
        farm.credentials.store("acc-1", Credentials(me, Secret("right")))
        assert await farm.control.publish("acc-1", Control.CREDENTIALS) == 1
        told = await receive_until(client, lambda one: one["data"].get("state") == "connected")
        assert [one["type"] for one in told][-2:] == ["snapshot", "status"]


async def test_a_refused_password_is_not_tried_by_the_next_stream_either(
    farm: Farm, redis_url: str
) -> None:
    me = farm.account("acc-1")
    farm.credentials.store("acc-1", Credentials(me, Secret("wrong")))
    async with running(farm, redis_url, "ws-1", idle_s=0.05) as one:
        await until(lambda: len(one.context.keeper.held) == 2)
        for _ in range(3):
            async with one.watch("acc-1") as client:
                await receive_until(client, is_login_failed)
            await until(lambda: one.metric("ws_active_accounts") == 0)
        tried = [one for terminal in farm.terminals.values() for one in terminal.sign_ins]
        assert tried == [me]
        assert farm.credentials.refusals == ["acc-1"]


async def test_an_owner_that_was_replaced_opens_a_new_epoch_with_a_snapshot(
    replica: Replica,
) -> None:
    me = replica.farm.account("acc-1")
    async with replica.watch("acc-1") as client:
        first = (await receive_until(client, is_type("snapshot")))[-1]
        terminal = await replica.farm.terminal_of("acc-1")
        await terminal.disturb(fault=StaleToken("a newer owner has been there"))
        again = await receive(client)
        assert (again["type"], again["seq"]) == ("snapshot", 0)
        assert again["epoch"] > first["epoch"]
        assert "conflated" not in again["data"]
        await terminal.show(make_snapshot(me, make_position(1)))
        opened = await receive(client)
        assert (opened["epoch"], opened["seq"]) == (again["epoch"], 1)


async def test_live_state_reaches_redis_with_replayable_messages(replica: Replica) -> None:
    farm = replica.farm
    me = farm.account("acc-1")

    async def live() -> LiveState | None:
        return await farm.live.read("acc-1")

    async with replica.watch("acc-1") as client:
        snapshot = (await receive_until(client, is_type("snapshot")))[-1]
        terminal = await farm.terminal_of("acc-1")
        sent = []
        for ticket in (1, 2, 3):
            await terminal.show(make_snapshot(me, make_position(ticket)))
            sent.append(await receive(client))
        state = await eventually(live, lambda state: state is not None and state.seq == 3)
        assert state is not None
        assert (state.epoch, state.instance_id) == (snapshot["epoch"], "ws-1")
        assert state.terminal_id == terminal.terminal_id
        look = msgspec.json.decode(state.payload, type=Snapshot)
        assert [position.ticket for position in look.positions] == [3]
        followed = await farm.live.follow("acc-1", "ws-9", 0, 0)
        assert followed is not None
        assert followed.told is not None
        assert json.loads(followed.told)["positions"][0]["ticket"] == 3
        assert [json.loads(frame.text) for frame in followed.frames] == sent
        later = await eventually(live, lambda later: later != state)
        assert later is not None
        assert later.as_of_ms > state.as_of_ms
        assert later.seq == state.seq


async def test_an_unwatched_stream_ends_and_frees_its_terminal(farm: Farm, redis_url: str) -> None:
    me = farm.account("acc-1")
    farm.account("acc-2", login=2)
    async with running(farm, redis_url, "ws-1", idle_s=0.05) as one:
        await until(lambda: len(one.context.keeper.held) == 2)
        async with one.watch("acc-1") as client:
            first = (await receive_until(client, is_type("snapshot")))[-1]
            terminal = await farm.terminal_of("acc-1")
        async with one.watch("acc-2") as client:
            await receive_until(client, is_type("snapshot"))
            await until(lambda: one.metric("ws_active_accounts") == 1)
            assert terminal.polls == 0
            await eventually(
                lambda: farm.placement.where("acc-1"), lambda terminal_id: terminal_id is None
            )
            assert await farm.live.read("acc-1") is None
            async with one.watch("acc-1") as again:
                second = (await receive_until(again, is_type("snapshot")))[-1]
        assert second["epoch"] > first["epoch"]
        assert terminal.sign_ins.count(me) == 2


async def test_a_reader_resumes_without_a_gap_or_gets_a_snapshot(replica: Replica) -> None:
    me = replica.farm.account("acc-1")
    async with replica.watch("acc-1") as client:
        connected = await receive(client)
        await receive(client)
        terminal = await replica.farm.terminal_of("acc-1")
        await terminal.show(make_snapshot(me, make_position(1)))
        last = await receive(client)
    async with replica.watch("acc-1") as other:
        await receive_until(other, is_type("snapshot"))
        await terminal.show(make_snapshot(me, make_position(2)))
        missed = await receive(other)
        since = f"ticket={connected['data']['resume_ticket']}&since={last['epoch']}:{last['seq']}"
        async with replica.watch("acc-1", since) as client:
            assert (await receive(client))["data"]["resumed"] is True
            assert await receive(client) == missed
    unknown = f"ticket={await replica.farm.ticket('acc-1')}&since={last['epoch'] - 1}:1"
    async with replica.watch("acc-1", unknown) as client:
        assert (await receive(client))["data"]["resumed"] is False
        assert (await receive(client))["type"] == "snapshot"


async def test_a_replay_larger_than_a_backlog_may_be_is_sent_whole(replica: Replica) -> None:
    me = replica.farm.account("acc-1")
    async with replica.watch("acc-1") as client:
        snapshot = (await receive_until(client, is_type("snapshot")))[-1]
        terminal = await replica.farm.terminal_of("acc-1")
        missed = []
        for step in range(1, 9):
            crowd = [make_position(ticket, profit=step) for ticket in range(1, 200)]
            await terminal.show(make_snapshot(me, *crowd))
            missed.append(await receive(client))
        size = sum(len(json.dumps(one, separators=(",", ":"))) for one in missed)
        assert BACKLOG_BYTES < size < RING_BYTES
        query = f"ticket={await replica.farm.ticket('acc-1')}&since={snapshot['epoch']}:0"
        async with replica.watch("acc-1", query) as other:
            assert (await receive(other))["data"]["resumed"] is True
            assert [await receive(other) for _ in missed] == missed


async def test_stopping_closes_with_1012_and_gives_everything_back(
    farm: Farm, redis_url: str
) -> None:
    farm.account("acc-1")
    async with running(farm, redis_url, "ws-1") as one:
        await until(lambda: len(one.context.keeper.held) == 2)
        stack = one.watch("acc-1")
        client = await stack.__aenter__()
        await receive_until(client, is_type("snapshot"))
    with pytest.raises(ConnectionClosed):
        await receive_until(client, lambda _: False)
    assert client.close_code == 1012
    await stack.__aexit__(None, None, None)
    assert await farm.leases.holder("S1") is None
    # The next owner finds the line where it was.
    assert await farm.placement.where("acc-1") is not None
