"""Stream terminals that say that they drain: who is on them leaves, and nobody comes."""

from typing import Any

import httpx
import pytest
from tests.integration.websocket_pool.conftest import (
    PORTS,
    Farm,
    Replica,
    eventually,
    receive,
    receive_until,
    running,
    until,
)
from tests.integration.websocket_pool.pairs import held_by, is_type, pair

from mt5kit.domain.accounts import AccountIdentity
from mt5kit.service import departures, roster
from mt5kit.terminal.supervisor import Supervisors
from mt5kit.testing.fake_terminal import FakeStreamTerminal, make_position, make_snapshot
from websocket_pool import context as context_module
from websocket_pool import owner as owner_module


class Supervision:
    """The supervisor of all terminals; those that drain are named."""

    def __init__(self) -> None:
        self.draining: set[str] = set()

    def of(self) -> Supervisors:
        return Supervisors(8100, None, httpx.MockTransport(self._answer))

    def _answer(self, _: httpx.Request) -> httpx.Response:
        terminals = [
            {"port": port, "state": "draining" if one in self.draining else "running"}
            for one, port in PORTS.items()
        ]
        return httpx.Response(200, json={"terminals": terminals})


@pytest.fixture
def supervision(monkeypatch: pytest.MonkeyPatch) -> Supervision:
    for module, name in (
        (context_module, "LOOK_S"),
        (context_module, "BEAT_S"),
        (owner_module, "DRAIN_LOOK_S"),
        (departures, "HEARD_S"),
    ):
        monkeypatch.setattr(module, name, 0.01)
    return Supervision()


async def show(farm: Farm, me: AccountIdentity, *tickets: int) -> None:
    terminal = await farm.terminal_of("acc-1")
    await terminal.show(make_snapshot(me, *map(make_position, tickets)))


async def whole(*replicas: Replica) -> None:
    """Until each has its share, and has heard of all that are up."""
    count = len(replicas[0].farm.terminals)
    await until(
        lambda: (
            sum(len(each.context.keeper.held) for each in replicas) == count
            and all(len(each.context.board.others("")) == count for each in replicas)
        )
    )


async def gone(replica: Replica, terminal_id: str) -> None:
    """Until a terminal is laid down, and is not taken up again."""
    await until(lambda: terminal_id not in replica.context.keeper.held)
    await replica.context.keeper.round()
    assert terminal_id not in replica.context.keeper.held
    assert await replica.farm.leases.holder(terminal_id) is None


async def test_an_account_leaves_in_the_middle_of_its_line(
    farm: Farm, redis_url: str, supervision: Supervision
) -> None:
    me = farm.account("acc-1")
    async with running(farm, redis_url, "ws-1", supervisors=supervision.of) as one:
        await whole(one)
        async with one.watch("acc-1") as client:
            epoch = (await receive_until(client, is_type("snapshot")))[-1]["epoch"]
            await show(farm, me, 1)
            assert (await receive(client))["seq"] == 1
            left = (await farm.terminal_of("acc-1")).terminal_id
            supervision.draining = {left}
            await gone(one, left)
            assert (await farm.terminal_of("acc-1")).terminal_id != left
            await show(farm, me, 1, 2)
            told = await receive(client)
            assert (told["type"], told["epoch"], told["seq"]) == ("position_update", epoch, 2)
        assert farm.terminals[left].sign_ins == [me]


async def test_an_account_leaves_for_a_terminal_of_another_replica(
    farm: Farm, redis_url: str, supervision: Supervision
) -> None:
    me = farm.account("acc-1")
    async with pair(farm, redis_url, supervisors=supervision.of) as (one, two):
        await whole(one, two)
        left, stays = held_by(one), held_by(two)
        await farm.placement.reserve("acc-1", [left], 60)
        async with one.watch("acc-1") as near, two.watch("acc-1") as far:
            epochs = [
                (await receive_until(each, is_type("snapshot")))[-1]["epoch"]
                for each in (near, far)
            ]
            supervision.draining = {left}
            await eventually(lambda: farm.placement.where("acc-1"), lambda where: where == stays)
            await until(lambda: bool(farm.terminals[stays].sign_ins))
            await show(farm, me, 1)
            told = [await receive(each) for each in (near, far)]
            assert told[0] == told[1]
            assert [(each["epoch"], each["seq"]) for each in told] == [(epochs[0], 1)] * 2
            await gone(one, left)
            # There is one left, and the other replica has it.
            assert held_by(two) == stays


async def test_an_account_that_has_nowhere_to_go_stays_and_leaves_when_it_has(
    farm: Farm, redis_url: str, supervision: Supervision
) -> None:
    me, other = farm.account("acc-1"), farm.account("acc-2", 2)
    async with running(farm, redis_url, "ws-1", supervisors=supervision.of, idle_s=0.1) as one:
        await whole(one)
        async with one.watch("acc-1") as client:
            await receive_until(client, is_type("snapshot"))
            left = (await farm.terminal_of("acc-1")).terminal_id
            [free] = set(farm.terminals) - {left}
            async with one.watch("acc-2") as taken:
                await receive_until(taken, is_type("snapshot"))
                supervision.draining = {left}
                await eventually(farm.draining, lambda draining: left in draining)
                await show(farm, me, 1)
                assert (await receive(client))["seq"] == 1
                assert (await farm.terminal_of("acc-1")).terminal_id == left
                assert left in one.context.keeper.held
            # The other is watched no more.
            await gone(one, left)
            await show(farm, me, 1, 2)
            assert (await receive(client))["seq"] == 2
        assert farm.terminals[free].sign_ins == [other, me]


async def test_nobody_is_sent_to_a_terminal_that_drains(
    farm: Farm, redis_url: str, supervision: Supervision, monkeypatch: pytest.MonkeyPatch
) -> None:
    me, other = farm.account("acc-1"), farm.account("acc-2", 2)
    # It is not laid down yet.
    monkeypatch.setattr(departures, "HEARD_S", 3600)
    farm.terminals["S3"] = FakeStreamTerminal("S3", farm.passwords)
    async with running(farm, redis_url, "ws-1", supervisors=supervision.of) as one:
        await whole(one)
        supervision.draining = {"S1"}
        await eventually(farm.draining, lambda draining: "S1" in draining)
        assert sorted(one.context.board.candidates()) == ["S2", "S3"]
        async with one.watch("acc-1") as client:
            await receive_until(client, is_type("snapshot"))
            # Another was sent there before, and somebody waits for its stream.
            await farm.live.follow("acc-2", "ws-9", 0, 0)
            await farm.placement.reserve("acc-2", ["S1"], 60)
            async with one.watch("acc-2") as waiting:
                await receive_until(waiting, is_type("snapshot"))
        assert farm.terminals["S1"].sign_ins == []
        used = [farm.terminals[name].sign_ins for name in ("S2", "S3")]
        assert sorted(used, key=str) == sorted([[me], [other]], key=str)


async def test_a_reservation_that_nobody_uses_does_not_hold_a_terminal(
    farm: Farm, redis_url: str, supervision: Supervision
) -> None:
    farm.account("acc-1")
    async with running(farm, redis_url, "ws-1", supervisors=supervision.of) as one:
        await whole(one)
        await farm.placement.reserve("acc-1", ["S1"], 60)
        supervision.draining = {"S1"}
        await gone(one, "S1")
        assert await farm.placement.where("acc-1") is None
        async with one.watch("acc-1") as client:
            await receive_until(client, is_type("snapshot"))
        assert await farm.placement.where("acc-1") == "S2"


async def test_a_terminal_that_comes_back_is_taken_up_again(
    farm: Farm, redis_url: str, supervision: Supervision, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(farm, redis_url, "ws-1", supervisors=supervision.of) as one:
        await whole(one)
        supervision.draining = {"S1"}
        await gone(one, "S1")
        supervision.draining = set()
        monkeypatch.setattr(roster, "DRAINED_S", 0.0)
        await whole(one)


async def test_ready_says_which_terminals_drain(
    farm: Farm, redis_url: str, supervision: Supervision
) -> None:
    me: Any = farm.account("acc-1")
    async with running(farm, redis_url, "ws-1", supervisors=supervision.of) as one:
        await whole(one)
        await farm.placement.reserve("acc-2", ["S2"], 60)
        await farm.placement.reserve("acc-1", ["S1"], 60)
        async with one.watch("acc-1") as client:
            await receive_until(client, is_type("snapshot"))
            supervision.draining = {"S1"}
            terminals: Any = one.context.describe
            await until(lambda: terminals()["terminals"]["S1"]["draining"])
            assert not terminals()["terminals"]["S2"]["draining"]
        assert farm.terminals["S1"].sign_ins == [me]
