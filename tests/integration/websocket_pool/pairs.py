"""Two replicas that share the terminals, and what tests of them wait for."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from tests.integration.websocket_pool.conftest import Farm, Replica, receive, running, until
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from mt5kit.state.redis import Lease, LeaseStore


def is_type(name: str) -> Callable[[dict[str, Any]], bool]:
    return lambda message: bool(message["type"] == name)


def held_by(replica: Replica) -> str:
    """The one terminal of a replica."""
    [terminal_id] = replica.context.keeper.held
    return terminal_id


async def holds_all(replica: Replica) -> None:
    """Until every terminal is this replica's."""
    await until(lambda: len(replica.context.keeper.held) == len(replica.farm.terminals))


@contextlib.asynccontextmanager
async def pair(farm: Farm, redis_url: str, **changes: Any) -> AsyncIterator[tuple[Replica, ...]]:
    """Two replicas, each with one terminal."""
    async with (
        running(farm, redis_url, "ws-1", **changes) as one,
        running(farm, redis_url, "ws-2", **changes) as two,
    ):
        await until(lambda: all(len(each.context.keeper.held) == 1 for each in (one, two)))
        yield one, two


async def first_message(replica: Replica, query: str) -> dict[str, Any]:
    """What a socket of the account `acc-1` is told first."""
    async with replica.watch("acc-1", query) as client:
        return await receive(client)


async def rest_of(client: ClientConnection) -> list[dict[str, Any]]:
    """Every message until the connection is closed."""
    taken = []
    with contextlib.suppress(ConnectionClosed):
        while True:
            taken.append(await receive(client))
    return taken


async def closed_with(client: ClientConnection) -> int | None:
    await rest_of(client)
    return client.close_code


async def hurried(replica: Replica, condition: Callable[[], bool]) -> None:
    """Wait for what a follower does at its next look, which would be two seconds away."""
    async with asyncio.timeout(10):
        while not condition():
            for stream in replica.context.hub.streams:
                stream.poke()
            await asyncio.sleep(0.01)


def keep_leases(monkeypatch: pytest.MonkeyPatch, *replicas: Replica) -> None:
    """Whoever is the first to come back to an empty Redis takes no terminal of the other's."""
    holders = {
        lease.terminal_id: lease.owner
        for replica in replicas
        for lease in replica.context.keeper.held.values()
    }
    acquire = LeaseStore.acquire

    async def own(self: LeaseStore, terminal_id: str, owner: str, *more: Any) -> Lease | None:
        if owner != holders[terminal_id]:
            return None
        return await acquire(self, terminal_id, owner, *more)

    monkeypatch.setattr(LeaseStore, "acquire", own)
