"""The replica on a simulated terminal behind the real link: prices that move by themselves."""

import os
import signal
from collections.abc import AsyncIterator
from itertools import pairwise
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from tests.integration.websocket_pool.conftest import (
    Farm,
    Replica,
    receive,
    receive_until,
    running,
    until,
)

from mt5kit.domain.accounts import AccountIdentity
from mt5kit.secret import Secret
from mt5kit.telemetry.terminal_metrics import TerminalMetrics
from mt5kit.terminal.address import AddressGuard
from mt5kit.terminal.credentials import Credentials
from websocket_pool.terminals import LinkedTerminals

ME = AccountIdentity(1001, "Test-Server")


@pytest.fixture(scope="module")
def simulated(simulate: Any) -> Any:
    return simulate(["s-1"], role="stream")


@pytest.fixture
async def linked(farm: Farm, redis_url: str, simulated: Any) -> AsyncIterator[Replica]:
    """A replica whose one stream terminal is simulated."""
    farm.credentials.store("acc-1", Credentials(ME, Secret("alpha-pass-1001")))
    terminals = LinkedTerminals.of(
        [simulated.terminals["s-1"].address],
        AddressGuard(["127.0.0.0/8"]),
        TerminalMetrics(CollectorRegistry()),
    )
    async with running(farm, redis_url, "ws-1", terminals=terminals) as one:
        await until(lambda: len(one.context.keeper.held) == 1)
        yield one


async def test_moving_prices_arrive_numbered_and_alternating(linked: Replica) -> None:
    async with linked.watch("acc-1") as client:
        greeting = await receive_until(client, lambda one: one["type"] == "snapshot")
        snapshot = greeting[-1]
        assert snapshot["data"]["account"]["login"] == ME.login
        assert len(snapshot["data"]["positions"]) == 2
        assert len(snapshot["data"]["orders"]) == 1
        updates = [await receive(client) for _ in range(20)]
    numbers = [snapshot["seq"], *(update["seq"] for update in updates)]
    assert all(later == earlier + 1 for earlier, later in pairwise(numbers))
    assert {update["epoch"] for update in updates} == {snapshot["epoch"]}
    kinds = {update["type"] for update in updates}
    assert {"position_update", "account_update"} <= kinds
    assert linked.metric("ws_delivery_latency_seconds_count") >= 20


async def test_a_killed_terminal_is_told_and_the_stream_comes_back(
    linked: Replica, simulated: Any
) -> None:
    async with linked.watch("acc-1") as client:
        await receive_until(client, lambda one: one["type"] == "snapshot")
        [state] = simulated.states()
        os.kill(int(state["pid"]), signal.SIGKILL)
        lost = await receive_until(client, lambda one: one["type"] == "status")
        assert lost[-1]["data"]["state"] == "terminal_unavailable"
        back = await receive_until(client, lambda one: one["type"] == "status")
        while back[-1]["data"]["state"] != "connected":
            back += await receive_until(client, lambda one: one["type"] == "status")
        moved = await receive_until(client, lambda one: one["type"] == "position_update")
        line = [one["seq"] for one in (*lost, *back, *moved)]
        assert line == list(range(line[0], line[0] + len(line)))
