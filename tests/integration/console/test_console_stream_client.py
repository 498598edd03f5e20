"""The stream client against a server that plays tricks on it."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import httpx
import pytest
from tests.integration.console.console_fakes import (
    API_KEY,
    USER,
    FakeAccount,
    FakeSwarm,
    demo_swarm,
    served,
)
from websockets.exceptions import ConnectionClosedError
from websockets.frames import Close

from console.api_client import ApiClient, ApiFailure, Problem
from console.stream_client import Phase, StreamClient
from mt5kit.backoff import Backoff

PATIENCE_S = 10.0


async def until(truth: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not truth():
            await asyncio.sleep(0.005)


@pytest.fixture
async def swarm() -> AsyncIterator[FakeSwarm]:
    fake = demo_swarm()
    async with served(fake.app) as base_url:
        fake.base_url = base_url
        yield fake


def client_of(swarm: FakeSwarm) -> ApiClient:
    headers = {"X-API-Key": API_KEY}
    return ApiClient(httpx.AsyncClient(base_url=swarm.base_url, headers=headers, trust_env=False))


@asynccontextmanager
async def following(swarm: FakeSwarm, account_id: str = "demo-1") -> AsyncIterator[StreamClient]:
    async with client_of(swarm) as api:
        quick = Backoff(0.01, 0.05, random.Random(1))
        stream = StreamClient(lambda: api.assign(USER, account_id), backoff=quick)
        running = asyncio.create_task(stream.run())
        try:
            yield stream
        finally:
            running.cancel()
            with suppress(asyncio.CancelledError):
                await running


def agree(stream: StreamClient, account: FakeAccount) -> bool:
    model = stream.model
    return (
        model.account is not None
        and model.account.equity == account.info["equity"]
        and [held.profit for held in model.positions]
        == [held["profit"] for held in account.positions]
        and model.seq == account.seq
    )


async def test_it_follows_what_it_is_told(swarm: FakeSwarm) -> None:
    account = swarm.accounts["demo-1"]
    async with following(swarm) as stream:
        await until(lambda: account.sockets)
        for profit in (5.0, -7.25, 12.0):
            await account.move(profit)
        await until(lambda: agree(stream, account))
        assert stream.link.phase is Phase.LIVE
        assert stream.link.instance_id == "ws-1"
        assert account.heard == []
    await until(lambda: not account.sockets)


async def test_a_gap_is_mended_by_a_refresh(swarm: FakeSwarm) -> None:
    account = swarm.accounts["demo-1"]
    async with following(swarm) as stream:
        await until(lambda: account.sockets)
        account.seq += 1  # a message that never came
        await account.move(5.0)
        await until(lambda: agree(stream, account))
        assert account.heard == [{"type": "refresh"}]


async def test_a_cut_is_resumed_without_the_issuer(swarm: FakeSwarm) -> None:
    account = swarm.accounts["demo-1"]
    async with following(swarm) as stream:
        await until(lambda: account.sockets)
        await account.move(5.0)
        await until(lambda: agree(stream, account))
        seq = account.seq
        await account.sockets[0].close(1012)
        await until(lambda: len(account.queries) == 2 and stream.link.phase is Phase.LIVE)
        await until(lambda: account.sockets)
        await account.move(6.0)
        await until(lambda: agree(stream, account))
    assert account.queries[1]["since"] == f"{account.epoch}:{seq}"
    assert swarm.assigned == 1


async def test_a_resume_ticket_that_is_refused_falls_back_to_the_issuer(swarm: FakeSwarm) -> None:
    account = swarm.accounts["demo-1"]
    async with following(swarm) as stream:
        await until(lambda: account.sockets)
        swarm.tickets.clear()
        await account.sockets[0].close(1012)
        await until(lambda: swarm.assigned == 2 and agree(stream, account))


async def test_a_refusal_is_told_in_its_own_words(swarm: FakeSwarm) -> None:
    refusal = {"success": False, "error": "every stream terminal is taken", "retry_after_s": 0.01,
               "code": "SERVICE_OVERLOADED"}  # fmt: skip
    swarm.refuse_assign = (503, refusal)
    async with following(swarm) as stream:
        await until(lambda: stream.link.problem)
        expected = Problem("every stream terminal is taken", "SERVICE_OVERLOADED")
        assert stream.link.problem == expected
        swarm.refuse_assign = None
        await until(lambda: stream.link.phase is Phase.LIVE and stream.link.problem is None)


async def test_a_close_code_becomes_a_sentence(swarm: FakeSwarm) -> None:
    account = swarm.accounts["demo-1"]
    async with following(swarm) as stream:
        await until(lambda: account.sockets)
        refusal = {"success": False, "error": "disconnected", "code": "CONFLICT"}
        swarm.refuse_assign = (409, refusal)
        swarm.tickets.clear()
        seen = []

        def noted() -> bool:
            seen.append(stream.link.problem)
            return Problem("disconnected", "CONFLICT") in seen

        await account.sockets[0].close(4409)
        await until(noted)
        assert Problem("The account was disconnected or deleted.", "WS_4409") in seen


async def test_a_replica_that_hears_nothing_is_told_of_until_it_does(swarm: FakeSwarm) -> None:
    account = swarm.accounts["demo-1"]
    async with following(swarm) as stream:
        await until(lambda: account.sockets)
        await account.aside("degraded", "Redis is away")
        await until(lambda: stream.link.phase is Phase.DEGRADED)
        assert stream.link.problem == Problem("Redis is away", "STREAM_DEGRADED")
        assert stream.link.instance_id == "ws-1"
        await account.aside("connected", None)
        await until(lambda: stream.link.phase is Phase.LIVE)
        assert stream.link.problem is None
        await account.move(5.0)
        await until(lambda: agree(stream, account))
        assert account.heard == []
        assert len(account.queries) == 1


async def test_when_the_hour_is_over_the_issuer_is_asked(swarm: FakeSwarm) -> None:
    account = swarm.accounts["demo-1"]
    async with following(swarm) as stream:
        await until(lambda: account.sockets)
        await account.sockets[0].close(4401, "the connection's hour is over")
        await until(lambda: len(account.queries) == 2 and stream.link.phase is Phase.LIVE)
    assert swarm.assigned == 2


@pytest.mark.parametrize(
    ("code", "reason", "asked_s", "wait_s"),
    [
        (1012, "this replica restarts; reconnect after 1250 ms", 0, 1.25),
        (1012, "reconnect after 999999999 ms", 0, 60.0),
        (1012, "the account has another login now", 0, 0.0),
        (1013, "", 7.5, 7.5),
        (4429, "", 7.5, 7.5),
        (4408, "", 7.5, 0.0),
    ],
)
async def test_it_stays_away_as_long_as_it_is_asked_to(
    swarm: FakeSwarm, code: int, reason: str, asked_s: float, wait_s: float
) -> None:
    async with client_of(swarm) as api:
        stream = StreamClient(lambda: api.assign(USER, "demo-1"))
        stream._retry_after_s = asked_s
        closed = ConnectionClosedError(Close(code, reason), None)
        problem, least_wait = stream._closed(closed)
    assert (problem.code, least_wait) == (f"WS_{code}", wait_s)


async def test_an_error_may_ask_to_stay_away(swarm: FakeSwarm) -> None:
    account = swarm.accounts["demo-1"]
    data = {"code": "SERVICE_OVERLOADED", "message": "full", "retry_after_s": 7.5}
    async with following(swarm) as stream:
        await until(lambda: account.sockets)
        await account.sockets[0].send_json(account.frame("error", data, advance=False))
        await until(lambda: stream._retry_after_s == 7.5)
        assert stream.link.phase is Phase.LIVE


async def test_words_that_are_no_message_end_in_a_new_connection(swarm: FakeSwarm) -> None:
    account = swarm.accounts["demo-1"]
    async with following(swarm) as stream:
        await until(lambda: account.sockets)
        await account.sockets[0].send_text("{nonsense")
        await until(lambda: len(account.queries) == 2 and stream.link.phase is Phase.LIVE)


async def test_no_ticket_reaches_a_log(swarm: FakeSwarm, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    account = swarm.accounts["demo-1"]
    async with following(swarm):
        await until(lambda: account.sockets)
    ours = [record for record in caplog.records if not record.name.startswith("uvicorn")]
    assert not any("ticket-" in record.getMessage() for record in ours)
    assert not any(API_KEY in record.getMessage() for record in ours)


async def test_an_api_that_is_away_says_so() -> None:
    async with ApiClient(httpx.AsyncClient(base_url="http://127.0.0.1:9", trust_env=False)) as api:
        with pytest.raises(ApiFailure) as caught:
            await api.accounts(USER)
    assert caught.value.problem.code == "API_UNREACHABLE"


async def test_an_answer_that_is_no_answer_of_ours_says_so() -> None:
    transport = httpx.MockTransport(lambda _: httpx.Response(502, html="<h1>Bad Gateway</h1>"))
    async with ApiClient(httpx.AsyncClient(base_url="http://x", transport=transport)) as api:
        with pytest.raises(ApiFailure, match="HTTP 502"):
            await api.accounts(USER)
