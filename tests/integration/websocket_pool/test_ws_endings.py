"""Accounts that are disconnected, become somebody else's, or are watched by nobody any more."""

import asyncio
from uuid import UUID

import pytest
from tests.integration.websocket_pool.conftest import (
    Farm,
    Replica,
    receive_until,
    running,
    until,
)
from tests.integration.websocket_pool.pairs import (
    closed_with,
    held_by,
    holds_all,
    hurried,
    is_type,
    pair,
)

from mt5kit.domain.accounts import AccountState
from mt5kit.errors import ServiceOverloaded
from mt5kit.state.postgres import Standing
from mt5kit.state.redis import Control, LiveStore
from mt5kit.testing.fake_terminal import make_position, make_snapshot

OTHER_USER = UUID(int=2)


def streamed(replica: Replica) -> set[str]:
    return {stream.account_id for stream in replica.context.hub.streams}


async def test_a_follower_that_could_not_check_checks_again(farm: Farm, redis_url: str) -> None:
    farm.account("acc-1")
    async with pair(farm, redis_url) as (one, two):
        await farm.placement.reserve("acc-1", [held_by(two)], 60)
        async with one.watch("acc-1") as far:
            await receive_until(far, is_type("snapshot"))
            failures = 0

            async def away(_: int) -> None:
                nonlocal failures
                failures += 1
                raise ServiceOverloaded("the database does not answer")

            farm.credentials.before_answer = away
            # The order is missed, and the store is away when it is asked what there was.
            farm.credentials.move("acc-1", AccountState.DISCONNECTED)
            one.context.hub._reread_all()
            await until(lambda: failures > 0)
            farm.credentials.before_answer = None
            await hurried(one, lambda: not streamed(one))
            assert await closed_with(far) == 4409


async def test_a_follower_of_an_ended_account_is_told_so(
    farm: Farm, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    farm.account("acc-1")
    farm.account("acc-2", login=2)
    async with pair(farm, redis_url) as (one, two):
        await farm.placement.reserve("acc-1", [held_by(two)], 60)
        # So that the follower has no terminal on which it could find out.
        await farm.placement.reserve("acc-2", [held_by(one)], 60)
        async with one.watch("acc-1") as far, one.watch("acc-2") as other:
            await receive_until(far, is_type("snapshot"))
            await receive_until(other, is_type("snapshot"))
            farm.credentials.move("acc-1", AccountState.DISCONNECTED)
            # Only the owner's replica is told.
            two.context.hub._reread_all()
            await until(lambda: not streamed(two))
            monkeypatch.setattr("websocket_pool.account_stream.DEAF_AFTER_S", 0.0)
            await hurried(one, lambda: streamed(one) == {"acc-2"})
            assert await closed_with(far) == 4409


async def test_the_last_users_ticket_does_not_open_an_account_that_is_anothers_now(
    replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    farm = replica.farm
    farm.account("acc-1")
    async with replica.watch("acc-1") as client:
        greeting = await receive_until(client, is_type("snapshot"))
    await farm.control.publish("acc-1", Control.DELETED)
    await until(lambda: not streamed(replica))
    # Somebody else connects an account of theirs under the same id.
    farm.account("acc-1", login=77)
    standing = farm.credentials.standing

    async def anothers(account_id: str) -> Standing:
        found = await standing(account_id)
        return Standing(found.row_id, OTHER_USER, found.state)

    monkeypatch.setattr(farm.credentials, "standing", anothers)
    query = f"ticket={greeting[0]['data']['resume_ticket']}"
    async with replica.watch("acc-1", query) as client:
        assert await closed_with(client) == 4404


async def test_an_opening_that_is_disconnected_leaves_no_reservation(
    replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    farm = replica.farm
    farm.account("acc-1")

    async def disconnected(_: str) -> int:
        farm.credentials.move("acc-1", AccountState.DISCONNECTED)
        await farm.control.publish("acc-1", Control.DISCONNECT)
        await asyncio.Event().wait()
        raise AssertionError("the order ends the opening")

    monkeypatch.setattr(replica.context.keeper, "reissue", disconnected)
    async with replica.watch("acc-1") as client:
        assert await closed_with(client) == 4409
    assert await farm.placement.where("acc-1") is None


async def test_a_socket_that_comes_while_a_follower_leaves_is_served(
    farm: Farm, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    me = farm.account("acc-1")
    async with pair(farm, redis_url, idle_s=0.1) as (one, two):
        await farm.placement.reserve("acc-1", [held_by(two)], 60)
        leaving, go_on = asyncio.Event(), asyncio.Event()
        unfollow = LiveStore.unfollow

        async def slow(self: LiveStore, account_id: str, replica: str) -> None:
            if replica == "ws-1":
                leaving.set()
                await go_on.wait()
            await unfollow(self, account_id, replica)

        async with two.watch("acc-1") as near:
            await receive_until(near, is_type("snapshot"))
            async with one.watch("acc-1") as far:
                await receive_until(far, is_type("snapshot"))
            monkeypatch.setattr(LiveStore, "unfollow", slow)
            await hurried(one, leaving.is_set)
            async with one.watch("acc-1") as far:
                await receive_until(far, is_type("snapshot"))
                go_on.set()
                terminal = await farm.terminal_of("acc-1")
                await terminal.show(make_snapshot(me, make_position(1)))
                told = (await receive_until(near, lambda one: one["seq"] == 1))[-1]
                assert (await receive_until(far, lambda one: one["seq"] == 1))[-1] == told


async def test_a_stream_that_waits_for_a_terminal_ends_when_nobody_watches(
    farm: Farm, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("websocket_pool.owner.REFRESH_S", 0.05)
    for login, account_id in enumerate(("acc-1", "acc-2", "acc-3"), start=1):
        farm.account(account_id, login)
    async with running(farm, redis_url, "ws-1", idle_s=0.2) as one:
        await holds_all(one)
        async with one.watch("acc-2") as other:
            await receive_until(other, is_type("snapshot"))
            async with one.watch("acc-1") as client:
                await receive_until(client, is_type("snapshot"))
                taken = await farm.placement.where("acc-1")
                assert taken is not None
                monkeypatch.setattr("websocket_pool.account_stream.DEAF_AFTER_S", 0.0)
                # Another account is given it, as by a Redis that has lost its data.
                await farm.placement.free("acc-1")
                await farm.placement.reserve("acc-3", [taken], 60)
                await receive_until(client, lambda told: told["data"].get("state") == "degraded")
            await until(lambda: streamed(one) == {"acc-2"})
