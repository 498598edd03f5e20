"""What the store says of an account, and the orders that tell of its changes."""

import asyncio
from typing import Any

import pytest
from structlog.testing import capture_logs
from tests.integration.websocket_pool.conftest import (
    Farm,
    Replica,
    eventually,
    receive,
    receive_until,
    running,
    until,
)
from tests.integration.websocket_pool.pairs import closed_with, is_type, rest_of

from local_stack.embedded import EmbeddedRedis
from mt5kit.domain.accounts import AccountIdentity, AccountState
from mt5kit.secret import Secret
from mt5kit.state.redis import Control, TicketGrant
from mt5kit.terminal.credentials import Credentials
from mt5kit.testing.fake_terminal import make_position, make_snapshot
from websocket_pool.resume import ResumeTicket

OTHER = AccountIdentity(99, "Demo")


def is_login_failed(message: dict[str, Any]) -> bool:
    data = message["data"]
    return "login_failed" in (data.get("state"), data.get("status", {}).get("state"))


def sign_ins(farm: Farm) -> list[AccountIdentity]:
    return [tried for terminal in farm.terminals.values() for tried in terminal.sign_ins]


async def test_another_login_opens_a_new_epoch(replica: Replica) -> None:
    farm = replica.farm
    me = farm.account("acc-1")
    farm.passwords[OTHER] = "right"
    async with replica.watch("acc-1") as client:
        greeting = await receive_until(client, is_type("snapshot"))
        ticket, old = greeting[0]["data"]["resume_ticket"], greeting[-1]
        farm.credentials.store("acc-1", Credentials(OTHER, Secret("right")))
        await farm.control.publish("acc-1", Control.CREDENTIALS)
        rest = await rest_of(client)
        assert client.close_code == 1012
    accounts = [one["data"]["account"] for one in (old, *rest) if "account" in one["data"]]
    assert {account.get("login", me.login) for account in accounts} == {me.login}
    query = f"ticket={ticket}&since={old['epoch']}:{old['seq']}"
    async with replica.watch("acc-1", query) as client:
        assert (await receive(client))["data"]["resumed"] is False
        new = (await receive_until(client, is_type("snapshot")))[-1]
    assert new["epoch"] > old["epoch"]
    assert new["data"]["account"]["login"] == OTHER.login


async def test_a_disconnected_account_is_4409_without_a_login(replica: Replica) -> None:
    farm = replica.farm
    farm.account("acc-1")
    farm.credentials.move("acc-1", AccountState.DISCONNECTED)
    async with replica.watch("acc-1") as client:
        assert await closed_with(client) == 4409
    assert sign_ins(farm) == []
    assert await farm.placement.where("acc-1") is None


async def test_an_account_the_broker_refused_is_watched_without_a_login(replica: Replica) -> None:
    farm = replica.farm
    me = farm.account("acc-1")
    farm.credentials.move("acc-1", AccountState.LOGIN_FAILED)
    async with replica.watch("acc-1") as client:
        await receive_until(client, is_login_failed)
        async with replica.watch("acc-1") as other:
            greeting, error = await receive(other), await receive(other)
            assert greeting["data"]["status"]["state"] == "login_failed"
            assert error["data"]["code"] == "MT5_LOGIN_FAILED"
        assert sign_ins(farm) == []
        assert farm.credentials.refusals == []
        farm.credentials.store("acc-1", Credentials(me, Secret("right")))
        await farm.control.publish("acc-1", Control.CREDENTIALS)
        await receive_until(client, is_type("snapshot"))
        assert sign_ins(farm) == [me]


async def test_a_disconnect_while_a_stream_opens_counts(replica: Replica) -> None:
    farm = replica.farm
    farm.account("acc-1")

    async def meanwhile(reads: int) -> None:
        # After the answer has been found, before it is given: it is out of date.
        if reads == 2:
            farm.credentials.move("acc-1", AccountState.DISCONNECTED)
            replica.context.hub._obey("acc-1", Control.DISCONNECT)

    farm.credentials.before_answer = meanwhile
    async with replica.watch("acc-1") as client:
        assert await closed_with(client) == 4409
    assert sign_ins(farm) == []


async def test_the_state_is_read_again_at_the_end_of_an_opening(replica: Replica) -> None:
    farm = replica.farm
    farm.account("acc-1")

    async def meanwhile(reads: int) -> None:
        if reads == 1:
            farm.credentials.move("acc-1", AccountState.DISCONNECTED)

    farm.credentials.before_answer = meanwhile
    async with replica.watch("acc-1") as client:
        assert await closed_with(client) == 4409
    assert sign_ins(farm) == []
    assert await farm.placement.where("acc-1") is None


async def test_only_new_credentials_make_a_refusal_forgotten(replica: Replica) -> None:
    farm = replica.farm
    me = farm.account("acc-1")
    farm.credentials.full = True
    farm.credentials.store("acc-1", Credentials(me, Secret("wrong")))
    async with replica.watch("acc-1") as client:
        await until(lambda: farm.credentials.refusals == ["acc-1"])
        await farm.control.publish("acc-1", Control.DISCONNECT)
        assert await closed_with(client) == 4409
    async with replica.watch("acc-1") as client:
        await receive_until(client, is_login_failed)
        assert sign_ins(farm) == [me]
        farm.credentials.store("acc-1", Credentials(me, Secret("right")))
        await farm.control.publish("acc-1", Control.CREDENTIALS)
        await receive_until(client, is_type("snapshot"))


async def test_what_was_ordered_while_redis_was_away_is_found_in_the_store(
    replica: Replica, redis_server: EmbeddedRedis
) -> None:
    farm = replica.farm
    me, you = farm.account("acc-1"), farm.account("acc-2", login=2)
    try:
        async with replica.watch("acc-1") as ended, replica.watch("acc-2") as goes_on:
            await receive_until(ended, is_type("snapshot"))
            snapshot = (await receive_until(goes_on, is_type("snapshot")))[-1]
            terminal = await farm.terminal_of("acc-2")
            await asyncio.to_thread(redis_server.stop)
            farm.credentials.move("acc-1", AccountState.DISCONNECTED)
            await asyncio.to_thread(redis_server.start)
            assert await closed_with(ended) == 4409
            await terminal.show(make_snapshot(you, make_position(1)))
            update = await receive(goes_on)
            assert (update["epoch"], update["seq"]) == (snapshot["epoch"], 1)
            assert sign_ins(farm).count(you) == sign_ins(farm).count(me) == 1
    finally:
        await asyncio.to_thread(redis_server.start)


async def test_a_fault_in_one_order_does_not_end_the_listening(
    replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    farm, hub = replica.farm, replica.context.hub
    farm.account("acc-1")
    obeyed = hub._obey

    def broken(account_id: str, control: Control) -> None:
        monkeypatch.setattr(hub, "_obey", obeyed)
        raise ValueError(account_id, control)

    monkeypatch.setattr(hub, "_obey", broken)
    async with replica.watch("acc-1") as client:
        await receive_until(client, is_type("snapshot"))
        with capture_logs() as logs:
            await farm.control.publish("acc-9", Control.DISCONNECT)
            await until(lambda: any(line["event"] == "task_failed" for line in logs))
            # Nothing tells when it has subscribed again.
            await eventually(lambda: farm.control.publish("acc-1", Control.DISCONNECT), bool)
        assert await closed_with(client) == 4409


async def test_a_refusal_of_redis_does_not_end_a_stream(farm: Farm, redis_url: str) -> None:
    me = farm.account("acc-1")
    await farm.redis.set(farm.keys.live("acc-1"), "not a hash")
    async with running(farm, redis_url, "ws-1", idle_s=0.05) as one:
        await until(lambda: len(one.context.keeper.held) == 2)
        with capture_logs() as logs:
            async with one.watch("acc-1") as client:
                await receive_until(client, is_type("snapshot"))
                await until(lambda: _count(logs, "live_state_not_published") > 0)
                await farm.redis.delete(farm.keys.live("acc-1"))
                await eventually(lambda: farm.live.read("acc-1"), bool)
                terminal = await farm.terminal_of("acc-1")
                await terminal.show(make_snapshot(me, make_position(1)))
                assert (await receive(client))["seq"] == 1
                await farm.redis.set(farm.keys.live("acc-1"), "not a hash")
            await until(lambda: _count(logs, "channel_ended") > 0)
    assert _count(logs, "stream_left_behind") == 1


def _count(logs: Any, event: str) -> int:
    return sum(line["event"] == event for line in logs)


async def test_leases_are_given_back_even_when_a_stream_does_not_end(
    farm: Farm, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    farm.account("acc-1")
    async with running(farm, redis_url, "ws-1") as one:
        await until(lambda: len(one.context.keeper.held) == 2)

        async def broken(*_: object) -> None:
            raise ValueError("a fault of ours")

        async with one.watch("acc-1") as client:
            await receive_until(client, is_type("snapshot"))
        monkeypatch.setattr(farm.live.__class__, "hand_over", broken)
        with capture_logs() as logs:
            await one.context.aclose()
        assert await farm.leases.holder("S1") is None
        assert await farm.leases.holder("S2") is None
        assert _count(logs, "stream_failed") == 1
        # uvicorn's own end closes once more.
        monkeypatch.undo()


async def test_who_comes_while_the_stream_ends_is_told_why(
    replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The order comes between the source's opening and the socket's first message."""
    replica.farm.account("acc-1")
    resume = replica.context.door.resume
    issue = resume.issue

    async def issue_late(grant: TicketGrant) -> ResumeTicket:
        ticket = await issue(grant)
        replica.context.hub._obey("acc-1", Control.DISCONNECT)
        await until(lambda: not replica.context.hub.streams)
        return ticket

    monkeypatch.setattr(resume, "issue", issue_late)
    async with replica.watch("acc-1") as client:
        assert await closed_with(client) == 4409
