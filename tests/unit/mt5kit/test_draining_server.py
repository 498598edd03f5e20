"""A pool drains while it still answers, and stops then."""

import asyncio
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
import uvicorn
from structlog.testing import capture_logs

from mt5kit.service.server import DrainingServer

LIMIT_S = 30


async def app(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body", "body": b""})


@asynccontextmanager
async def served(drain: Callable[[], Awaitable[None]]) -> AsyncIterator[tuple[Any, Any, str]]:
    """A running server, its end to be awaited, and its address."""
    bound = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(app, lifespan="off", log_config=None, access_log=False)
    server = DrainingServer(config, drain)
    before = signal.getsignal(signal.SIGTERM)
    serving = asyncio.create_task(server.serve(sockets=[bound]))
    async with asyncio.timeout(LIMIT_S):
        while not server.started:
            await asyncio.sleep(0.001)
    # Nothing is raised where it would end the tests.
    assert signal.getsignal(signal.SIGTERM) != before
    yield server, serving, f"http://127.0.0.1:{bound.getsockname()[1]}/"
    async with asyncio.timeout(LIMIT_S):
        await serving
    assert signal.getsignal(signal.SIGTERM) == before


async def test_it_answers_until_it_has_drained_and_stops_then() -> None:
    drains, drained = 0, asyncio.Event()

    async def drain() -> None:
        nonlocal drains
        drains += 1
        await drained.wait()

    async with served(drain) as (server, serving, url), httpx.AsyncClient() as client:
        ticks, on_tick = 0, server.on_tick

        async def count(counter: int) -> bool:
            nonlocal ticks
            ticks += 1
            stops: bool = await on_tick(counter)
            return stops

        server.on_tick = count
        signal.raise_signal(signal.SIGTERM)
        # It looks at each tick whether to stop.
        while not drains or (ticks < 3 and not serving.done()):
            await asyncio.sleep(0.001)
        assert (await client.get(url)).status_code == 204
        assert not serving.done()
        drained.set()
    assert drains == 1


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
async def test_a_second_signal_stops_it_at_once(second: signal.Signals) -> None:
    drains = 0

    async def drain() -> None:
        nonlocal drains
        drains += 1
        await asyncio.Event().wait()

    async with served(drain) as (server, _, _):
        signal.raise_signal(signal.SIGTERM)
        while not drains:
            await asyncio.sleep(0)
        signal.raise_signal(second)
    assert drains == 1
    assert not server._draining.done()
    server._draining.cancel()


async def test_a_drain_that_fails_stops_it_all_the_same() -> None:
    async def drain() -> None:
        raise ValueError("odd")

    with capture_logs() as logs:
        async with served(drain):
            signal.raise_signal(signal.SIGINT)
    assert [line["event"] for line in logs] == ["stopping", "drain_failed"]
