import asyncio
import contextlib
import io
import json
import logging
import socket
import time
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import httpx
import pytest
import structlog
from tests.integration.websocket_pool.conftest import (
    ORIGIN,
    USER,
    FakeVerifier,
    Farm,
    Replica,
    eventually,
    receive,
    receive_until,
    running,
    until,
)
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from local_stack.embedded import EmbeddedRedis
from mt5kit.domain.accounts import AccountIdentity
from mt5kit.state.redis import Control, LiveState, StateUnavailable
from mt5kit.telemetry.logs import configure_logs
from mt5kit.testing.fake_terminal import make_position, make_snapshot
from mt5kit.vault import SealBroken
from websocket_pool.credentials import StoredAccount
from websocket_pool.messages import LARGEST_CLIENT_MESSAGE
from websocket_pool.session import SessionRules
from websocket_pool.tokens import Bearer
from websocket_pool.wiring import Limits


def is_type(name: str) -> Any:
    return lambda message: message["type"] == name


async def closed_with(replica: Replica, account_id: str, query: str | None, **options: Any) -> int:
    async with replica.watch(account_id, query, **options) as client:
        with pytest.raises(ConnectionClosed):
            await receive_until(client, lambda _: False)
        assert client.close_code is not None
        return client.close_code


async def test_a_ticket_opens_once(replica: Replica) -> None:
    replica.farm.account("acc-1")
    query = f"ticket={await replica.farm.ticket('acc-1')}"
    async with replica.watch("acc-1", query) as client:
        assert (await receive(client))["type"] == "connected"
    assert await closed_with(replica, "acc-1", query) == 4401
    assert replica.metric("ws_closed_total", code="4401") == 1


async def test_a_ticket_in_the_first_message(replica: Replica) -> None:
    replica.farm.account("acc-1")
    ticket = await replica.farm.ticket("acc-1")
    async with replica.watch("acc-1", "") as client:
        await client.send(f'{{"type":"auth","ticket":"{ticket}"}}')
        assert (await receive(client))["type"] == "connected"


@pytest.mark.parametrize(
    "said", ['{"type":"auth","token":"a.b.c"}', '{"type":"ping"}', "x", b"\0", '{"type":"auth"}']
)
async def test_any_other_first_message_is_4401(replica: Replica, said: str | bytes) -> None:
    async with replica.watch("acc-1", "") as client:
        await client.send(said)
        with pytest.raises(ConnectionClosed):
            await receive(client)
        assert client.close_code == 4401


@pytest.mark.parametrize("ws_max_size", [LARGEST_CLIENT_MESSAGE, 1 << 20])
async def test_messages_over_4_kib_close_1009_whatever_the_server_lets_through(
    farm: Farm, redis_url: str, ws_max_size: int
) -> None:
    farm.account("acc-1")
    async with running(farm, redis_url, "ws-1", ws_max_size=ws_max_size) as one:
        await until(lambda: len(one.context.keeper.held) == 2)
        pad = "x" * LARGEST_CLIENT_MESSAGE
        ticket = await farm.ticket("acc-1")
        first = json.dumps({"type": "auth", "ticket": ticket, "pad": pad})
        for query, said in (("", first), (None, json.dumps({"type": "ping", "pad": pad}))):
            for form in (said, said.encode()):
                async with one.watch("acc-1", query) as client:
                    await client.send(form)
                    with pytest.raises(ConnectionClosed):
                        await receive_until(client, lambda _: False)
                    assert client.close_code == 1009
        # It was not even read.
        async with one.watch("acc-1", f"ticket={ticket}") as client:
            assert (await receive(client))["type"] == "connected"


async def test_a_ticket_outlives_a_refusal_that_passes(farm: Farm, redis_url: str) -> None:
    farm.account("acc-1")
    async with (
        running(farm, redis_url, "ws-1", limits=Limits(sockets=1)) as one,
        running(farm, redis_url, "ws-2", limits=Limits(per_user=1)) as two,
    ):
        query = f"ticket={await farm.ticket('acc-1')}"
        async with one.watch("acc-1") as first:
            await receive(first)
            assert await closed_with(one, "acc-1", query) == 1013
            # Of the same user, though on another replica.
            assert await closed_with(two, "acc-1", query) == 4429
        await until(lambda: one.metric("ws_active_connections") == 0)
        async with two.watch("acc-1", query) as client:
            assert (await receive(client))["type"] == "connected"
        assert await closed_with(two, "acc-1", query) == 4401


async def test_a_full_pool_says_when_to_come_back(farm: Farm, redis_url: str) -> None:
    farm.account("acc-1")
    async with running(farm, redis_url, "ws-1") as one:
        await until(lambda: len(one.context.keeper.held) == 2)
        for taken in ("acc-8", "acc-9"):
            await farm.placement.reserve(taken, ["S1", "S2"], 60)
        async with one.watch("acc-1") as client:
            error = await receive(client)
            assert (error["type"], error["data"]["code"]) == ("error", "SERVICE_OVERLOADED")
            assert error["data"]["retry_after_s"] == 30
            with pytest.raises(ConnectionClosed):
                await receive(client)
            assert client.close_code == 1013


async def test_a_token_opens_the_accounts_of_its_user_until_it_expires(
    farm: Farm, redis_url: str
) -> None:
    farm.account("acc-1")
    verifier = FakeVerifier()
    async with running(farm, redis_url, "ws-1", verifier=verifier) as one:
        verifier.bearers = {
            "mine": Bearer(UUID(USER), time.time() + 0.5),
            "anothers": Bearer(UUID(int=9), time.time() + 60),
        }
        codes = {}
        for token in ("mine", "anothers", "forged"):
            async with one.watch("acc-1", "") as client:
                await client.send(json.dumps({"type": "auth", "token": token}))
                with contextlib.suppress(ConnectionClosed):
                    greeting = await receive(client)
                    resume = greeting["data"]["resume_ticket"]
                    await receive_until(client, lambda _: False)
                codes[token] = client.close_code
        assert codes == {"mine": 4401, "anothers": 4404, "forged": 4401}
        assert await closed_with(one, "acc-1", f"ticket={resume}") == 4401


@pytest.mark.parametrize("path", ["/ws/", "/ws/accounts/acc-1", "/ws/account/a/b", "/health/live"])
async def test_a_handshake_to_no_socket_is_our_404(replica: Replica, path: str) -> None:
    url = f"ws://127.0.0.1:{replica.port}{path}?ticket=x"
    with pytest.raises(InvalidStatus) as refused:
        await connect(url, additional_headers={"X-Request-ID": "asked-1"})
    response = refused.value.response
    assert response.status_code == 404
    body = json.loads(response.body or b"")
    assert (body["success"], body["code"], body["request_id"]) == (False, "NOT_FOUND", "asked-1")
    assert response.headers["X-Request-ID"] == "asked-1"
    assert "ticket" not in body["error"]


async def test_a_ticket_opens_its_own_account_only(replica: Replica) -> None:
    replica.farm.account("acc-1")
    replica.farm.account("acc-2", login=2)
    query = f"ticket={await replica.farm.ticket('acc-1')}"
    assert await closed_with(replica, "acc-2", query) == 4404


async def test_an_account_that_is_gone_is_4404(replica: Replica) -> None:
    assert await closed_with(replica, "acc-9", None) == 4404


async def test_a_quotes_ticket_opens_no_account(replica: Replica) -> None:
    replica.farm.account("acc-1")
    ticket = await replica.farm.tickets.issue("acc-1", "user", scope="quotes")
    assert await closed_with(replica, "acc-1", f"ticket={ticket}") == 4401


async def test_pages_that_are_not_on_the_list_stay_outside(replica: Replica) -> None:
    replica.farm.account("acc-1")
    for origin in ("https://evil.example", "null", f"{ORIGIN}.evil.example"):
        assert await closed_with(replica, "acc-1", None, origin=origin) == 4403
    async with replica.watch("acc-1", origin=ORIGIN) as client:
        assert (await receive(client))["type"] == "connected"


async def test_the_owner_of_the_account_ends_its_streams(replica: Replica) -> None:
    farm = replica.farm
    farm.account("acc-1")
    async with replica.watch("acc-1") as client:
        resume = (await receive(client))["data"]["resume_ticket"]
        await farm.control.publish("acc-1", Control.DISCONNECT)
        with pytest.raises(ConnectionClosed):
            await receive_until(client, lambda _: False)
        assert client.close_code == 4409
    assert await closed_with(replica, "acc-1", f"ticket={resume}") == 4401


async def test_a_fault_of_ours_is_1011_and_tells_nothing(
    replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(_: str) -> StoredAccount:
        raise SealBroken("the seal is broken")

    replica.farm.account("acc-1")
    monkeypatch.setattr(replica.farm.credentials, "read", broken)
    async with replica.watch("acc-1") as client:
        with pytest.raises(ConnectionClosed):
            await receive(client)
        assert (client.close_code, client.close_reason) == (1011, "a fault on our side")


async def test_limits_of_users_and_of_the_replica(farm: Farm, redis_url: str) -> None:
    farm.account("acc-1")
    async with running(farm, redis_url, "ws-1", limits=Limits(sockets=3, per_user=2)) as one:
        await until(lambda: len(one.context.keeper.held) == 2)
        async with one.watch("acc-1") as a, one.watch("acc-1") as b:
            await receive(a)
            await receive(b)
            assert await closed_with(one, "acc-1", None) == 4429
            async with one.watch("acc-1", ""):
                assert await closed_with(one, "acc-1", None) == 1013
        await until(lambda: one.metric("ws_active_connections") == 0)
        async with one.watch("acc-1") as again:
            assert (await receive(again))["type"] == "connected"


async def test_a_connection_has_its_hour(farm: Farm, redis_url: str) -> None:
    farm.account("acc-1")
    rules = SessionRules("ws-1", lifetime_s=0.1)
    async with running(farm, redis_url, "ws-1", rules=rules) as one:
        await until(lambda: len(one.context.keeper.held) == 2)
        async with one.watch("acc-1") as client:
            resume = (await receive(client))["data"]["resume_ticket"]
            with pytest.raises(ConnectionClosed):
                await receive_until(client, lambda _: False)
            assert client.close_code == 4401
        # Resuming does not prolong it: the issuer has to be asked.
        assert await closed_with(one, "acc-1", f"ticket={resume}") == 4401
        async with one.watch("acc-1") as client:
            assert (await receive(client))["type"] == "connected"


async def test_without_redis_new_sockets_are_1013_and_open_ones_go_on(
    replica: Replica, redis_server: EmbeddedRedis
) -> None:
    me = replica.farm.account("acc-1")
    query = f"ticket={await replica.farm.ticket('acc-1')}"
    try:
        async with replica.watch("acc-1") as client:
            await receive_until(client, is_type("snapshot"))
            terminal = await replica.farm.terminal_of("acc-1")
            await asyncio.to_thread(redis_server.stop)
            assert await closed_with(replica, "acc-1", query) == 1013
            await terminal.show(make_snapshot(me, make_position(1)))
            assert (await receive(client))["type"] == "position_update"
            await asyncio.to_thread(redis_server.start)
            state = await eventually(
                lambda: _live(replica), lambda state: state is not None and state.seq == 1
            )
            assert state is not None
            followed = await replica.farm.live.follow("acc-1", "ws-9", state.epoch, 0)
            assert followed is not None
            assert [frame.seq for frame in followed.frames] == [1]
            await terminal.show(make_snapshot(me, make_position(2)))
            assert (await receive(client))["seq"] == 2
    finally:
        await asyncio.to_thread(redis_server.start)


async def _live(replica: Replica) -> LiveState | None:
    try:
        return await replica.farm.live.read("acc-1")
    except StateUnavailable:
        return None


@pytest.fixture
def logged() -> Iterator[io.StringIO]:
    """What a process configured as ours are writes: our events and the libraries'."""
    root, stream = logging.getLogger(), io.StringIO()
    handlers, level = root.handlers[:], root.level
    configure_logs(stream)
    # A logger that is kept would write here for ever.
    structlog.configure(cache_logger_on_first_use=False)
    yield stream
    structlog.reset_defaults()
    logging.basicConfig(handlers=handlers, level=level, force=True)


async def test_tickets_stay_out_of_the_log(farm: Farm, redis_url: str, logged: io.StringIO) -> None:
    farm.account("acc-1")
    told = [await farm.ticket("acc-1")]
    async with running(farm, redis_url, "ws-1") as one:
        await until(lambda: len(one.context.keeper.held) == 2)
        async with one.watch("acc-1", f"ticket={told[0]}") as client:
            told.append((await receive(client))["data"]["resume_ticket"])
        told.append(await farm.ticket("acc-1"))
        async with one.watch("acc-1", "") as client:
            await client.send(f'{{"type":"auth","ticket":"{told[-1]}"}}')
            told.append((await receive(client))["data"]["resume_ticket"])
        assert await closed_with(one, "acc-1", f"ticket={told[0]}") == 4401
    text = logged.getvalue()
    assert "/ws/account/acc-1" in text
    assert "stream_started" in text
    assert not any(ticket in text for ticket in told)


async def test_service_routes_answer(replica: Replica) -> None:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{replica.port}") as client:
        assert (await client.get("/health/live")).status_code == 200
        ready = (await client.get("/health/ready")).json()
        assert ready["terminals"]["S1"] == {
            "leased": True,
            "connected": True,
            "draining": False,
        }
        assert "ws_active_connections" in (await client.get("/metrics")).text
        missing = await client.get("/ws/account/acc-1")
        assert missing.status_code == 404
        assert missing.json()["code"] == "NOT_FOUND"


def _deaf_socket() -> socket.socket:
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.setblocking(False)
    return sock


async def test_a_stalled_reader_delays_nobody_and_is_cut(farm: Farm, redis_url: str) -> None:
    me = farm.account("acc-1")
    rules = SessionRules("ws-1", stall_s=0.5)
    async with running(farm, redis_url, "ws-1", rules=rules) as one:
        await until(lambda: len(one.context.keeper.held) == 2)
        loop = asyncio.get_running_loop()
        deaf = _deaf_socket()
        await loop.sock_connect(deaf, ("127.0.0.1", one.port))
        await loop.sock_sendall(deaf, _handshake(await farm.ticket("acc-1")))
        async with one.watch("acc-1") as healthy:
            await receive_until(healthy, is_type("snapshot"))
            await until(lambda: one.metric("ws_active_connections") == 2)
            taken = await _flood(
                farm, me, healthy, lambda: one.metric("ws_closed_total", code="4408") == 1
            )
            # It has read nothing, and what was meant for it has been thrown away.
            await until(lambda: one.transports == 1)
            terminal = await farm.terminal_of("acc-1")
            await terminal.show(make_snapshot(me, make_position(7_000)))
            last = await receive(healthy)
            assert [row["ticket"] for row in last["data"]["opened"]] == [7_000]
            taken.append(last)
        deaf.close()
        assert len(taken) > 1
        assert [message["seq"] for message in taken] == list(range(1, len(taken) + 1))
        assert one.metric("ws_active_connections") <= 1


def _handshake(ticket: str) -> bytes:
    lines = (
        f"GET /ws/account/acc-1?ticket={ticket} HTTP/1.1",
        "Host: x",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
    )
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


async def _flood(farm: Farm, me: AccountIdentity, healthy: Any, enough: Any) -> list[Any]:
    """Large messages until a condition holds; every one that the healthy reader got."""
    terminal = await farm.terminal_of("acc-1")
    taken = []
    async with asyncio.timeout(30):
        for number in range(1, 10_000):
            if enough():
                break
            crowd = [make_position(ticket, profit=number) for ticket in range(1, 1500)]
            await terminal.show(make_snapshot(me, *crowd))
            taken.append(await receive(healthy))
    return taken
