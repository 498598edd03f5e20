"""Replicas of two versions at once: what one does not understand costs a snapshot, no socket."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from tests.integration.websocket_pool.conftest import (
    Farm,
    Replica,
    eventually,
    receive,
    receive_until,
    until,
)
from tests.integration.websocket_pool.pairs import held_by, hurried, is_type, pair

from mt5kit.domain.accounts import AccountIdentity
from mt5kit.state.redis import Frame, LiveState, LiveStore
from mt5kit.testing.fake_terminal import make_position, make_snapshot
from websocket_pool import publisher
from websocket_pool.frames import NotUnderstood, frame_of, numbered_of
from websocket_pool.line import Numbered
from websocket_pool.messages import Message

UNKNOWN_TYPE = b'{"type":"margin_update","at_ms":1,"look_ms":1,"seen_ms":1}'
ANOTHER_SHAPE = b'{"version":2,"at":"now"}'


def odd_frames(head: bytes) -> Callable[[Numbered], Frame]:
    """How another version writes messages: clients understand them, we do not."""

    def frame(numbered: Numbered) -> Frame:
        return msgspec.structs.replace(frame_of(numbered), head=head)

    return frame


def odd_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have what clients know be told in another shape, too."""
    publish = LiveStore.publish

    async def another(
        self: LiveStore, account_id: str, token: int, state: LiveState, *more: Any, **named: Any
    ) -> None:
        odd = msgspec.structs.replace(state, told=b'{"status":[1,2]}')
        await publish(self, account_id, token, odd, *more, **named)

    monkeypatch.setattr(LiveStore, "publish", another)


async def show(farm: Farm, me: AccountIdentity, *tickets: int) -> None:
    terminal = await farm.terminal_of("acc-1")
    await terminal.show(make_snapshot(me, *map(make_position, tickets)))


def tickets(message: dict[str, Any]) -> list[int]:
    return [position["ticket"] for position in message["data"]["positions"]]


@pytest.mark.parametrize("head", [UNKNOWN_TYPE, ANOTHER_SHAPE, b"no JSON"])
async def test_messages_that_are_not_understood_are_made_up_for_by_a_snapshot(
    farm: Farm, redis_url: str, monkeypatch: pytest.MonkeyPatch, head: bytes
) -> None:
    me = farm.account("acc-1")
    async with pair(farm, redis_url) as (one, two):
        await farm.placement.reserve("acc-1", [held_by(two)], 60)
        async with one.watch("acc-1") as far, two.watch("acc-1") as near:
            for each in (far, near):
                await receive_until(each, is_type("snapshot"))
            with monkeypatch.context() as update:
                update.setattr(publisher, "frame_of", odd_frames(head))
                for seq in (1, 2):
                    await show(farm, me, *range(seq))
                    known, told = await receive(near), await receive(far)
                    assert (known["type"], known["seq"]) == ("position_update", seq)
                    assert (told["type"], told["seq"]) == ("snapshot", seq)
                    assert told["data"]["conflated"] is True
                    assert tickets(told) == tickets(known)
            # All are of one version again.
            await show(farm, me, 1, 2, 3)
            assert await receive(far) == await receive(near)


async def test_an_owner_that_is_not_understood_at_all_is_waited_for(
    farm: Farm, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    me = farm.account("acc-1")
    async with pair(farm, redis_url) as (one, two):
        await farm.placement.reserve("acc-1", [held_by(two)], 60)
        async with one.watch("acc-1") as far, two.watch("acc-1") as near:
            for each in (far, near):
                await receive_until(each, is_type("snapshot"))
            with monkeypatch.context() as update:
                update.setattr(publisher, "frame_of", odd_frames(ANOTHER_SHAPE))
                odd_told(update)
                await show(farm, me, 1)
                known, status = await receive(near), await receive(far)
                assert known["type"] == "position_update"
                assert (status["type"], status["data"]["state"]) == ("status", "degraded")
                assert "another version" in status["data"]["reason"]
                # Whoever comes now is let in, and told the same.
                async with one.watch("acc-1") as late:
                    await receive_until(late, lambda told: told["data"].get("state") == "degraded")
            await show(farm, me, 1, 2)
            seen = await receive_until(far, is_type("snapshot"))
            assert (seen[-1]["epoch"], seen[-1]["seq"]) == (known["epoch"], 2)
            await receive_until(far, lambda told: told["data"].get("state") == "connected")
            assert (await receive(near))["seq"] == 2
            await show(farm, me, 1, 2, 3)
            assert await receive(far) == await receive(near)


async def test_a_line_that_is_not_understood_is_not_gone_on_with(
    farm: Farm, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    me = farm.account("acc-1")
    async with pair(farm, redis_url) as (one, two):
        await farm.placement.reserve("acc-1", [held_by(two)], 60)
        async with one.watch("acc-1") as far:
            epoch = (await receive_until(far, is_type("snapshot")))[-1]["epoch"]
            with monkeypatch.context() as update:
                update.setattr(publisher, "frame_of", odd_frames(ANOTHER_SHAPE))
                odd_told(update)
                await show(farm, me, 1)
                await receive_until(far, lambda told: told["data"].get("state") == "degraded")
                await two.context.drain()
                await until(lambda: len(one.context.keeper.held) == 2)
                await hurried(one, lambda: polled(one))
                told = (await receive_until(far, is_type("snapshot")))[-1]
                assert told["epoch"] > epoch
                assert tickets(told) == [1]
        await eventually(lambda: farm.placement.where("acc-1"), bool)


def polled(replica: Replica) -> bool:
    return bool(replica.metric("ws_active_accounts"))


def test_more_than_we_know_of_a_message_is_passed_over() -> None:
    message = Message.of("status", b'{"data":{"state":"connected","why":"news"}}')
    frame = frame_of(Numbered(4, 10, 20, message))
    more = msgspec.json.encode(msgspec.json.decode(frame.head) | {"colour": "red"})
    back = numbered_of(msgspec.structs.replace(frame, head=more), live=True)
    assert (back.seq, back.at_ms, back.look_ms, back.message.payload) == (
        4,
        10,
        20,
        message.payload,
    )
    for head in (UNKNOWN_TYPE, ANOTHER_SHAPE, b"no JSON"):
        with pytest.raises(NotUnderstood):
            numbered_of(msgspec.structs.replace(frame, head=head), live=True)
