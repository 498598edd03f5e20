import asyncio
import json

import pytest

from websocket_pool.mailbox import BACKLOG_BYTES, CONTROL_MESSAGES, GREETING_BYTES, Mailbox
from websocket_pool.messages import (
    Auth,
    BadMessage,
    Message,
    Ping,
    Place,
    Refresh,
    encode,
    parse,
    parse_since,
)


def message(seq: int, kind: str = "account_update", size: int = 0) -> Message:
    return encode(kind, Place("acc", 5, seq), 0, {"pad": "x" * size})


class Shelf:
    """The snapshot of the moment."""

    def __init__(self) -> None:
        self.seq = 0

    def __call__(self) -> Message:
        return message(self.seq, "snapshot")


def seq_of(taken: Message | None) -> int:
    assert taken is not None
    return int(json.loads(taken.text)["seq"])


async def test_messages_leave_in_order_and_silence_is_none() -> None:
    mailbox = Mailbox(Shelf())
    for seq in (1, 2, 3):
        mailbox.put(message(seq))
    assert [seq_of(await mailbox.take(1)) for _ in range(3)] == [1, 2, 3]
    assert await mailbox.take(0.001) is None


async def test_a_backlog_becomes_one_snapshot_of_the_moment_it_is_sent() -> None:
    shelf = Shelf()
    mailbox = Mailbox(shelf)
    mailbox.put(message(0, "connected"))
    for shelf.seq in range(1, 40):
        mailbox.put(message(shelf.seq, size=20_000))
    assert mailbox._bytes <= BACKLOG_BYTES + 21_000
    taken = [await mailbox.take(1), await mailbox.take(1)]
    assert [one.type for one in taken if one] == ["connected", "snapshot"]
    assert seq_of(taken[1]) == 39
    mailbox.put(message(40))
    assert seq_of(await mailbox.take(1)) == 40


async def test_one_large_message_alone_is_no_backlog() -> None:
    mailbox = Mailbox(Shelf())
    mailbox.put(message(0, "connected"))
    mailbox.put(message(1, "snapshot", size=2 * BACKLOG_BYTES))
    assert [seq_of(await mailbox.take(1)) for _ in range(2)] == [0, 1]


@pytest.mark.parametrize("size", [1_000, 100_000])
async def test_a_replay_that_fits_leaves_whole(size: int) -> None:
    mailbox = Mailbox(Shelf())
    replay = [message(seq, size=size) for seq in range(1, BACKLOG_BYTES // size)]
    while not mailbox.fits(replay):
        replay.pop()
    mailbox.put(message(0, "connected", size=GREETING_BYTES // 2))
    for one in [*replay, message(len(replay) + 1, size=size)]:
        mailbox.put(one)
    taken = [seq_of(await mailbox.take(1)) for _ in range(len(replay) + 2)]
    assert taken == list(range(len(replay) + 2))


async def test_without_any_patience_what_is_there_is_taken() -> None:
    mailbox = Mailbox(Shelf())
    assert await mailbox.take(0) is None
    for seq in range(1, 40):
        mailbox.put(message(seq, size=20_000))
    assert await mailbox.take(0) is not None
    assert await mailbox.take(0) is None


async def test_pongs_that_nobody_takes_are_bounded() -> None:
    mailbox = Mailbox(Shelf())
    for _ in range(10 * CONTROL_MESSAGES):
        mailbox.put(message(0, "pong"))
    assert len(mailbox._queue) == CONTROL_MESSAGES


def test_the_envelope_has_the_six_fields() -> None:
    body = json.loads(encode("pong", Place("acc", 5, 9), 1_000, {}).text)
    assert body == {
        "type": "pong",
        "account_id": "acc",
        "epoch": 5,
        "seq": 9,
        "ts": "1970-01-01T00:00:01.000Z",
        "data": {},
    }


def test_what_clients_may_say() -> None:
    assert parse('{"type":"ping"}') == Ping()
    assert parse('{"type":"refresh","more":1}') == Refresh()
    assert parse('{"type":"auth","ticket":"t"}') == Auth(ticket="t")


@pytest.mark.parametrize(
    "said",
    ["", "ping", "[]", "{}", "null", '{"type":1}', '{"type":"sell"}', b"{}", "\ud800", "[" * 4000],
)
def test_everything_else_is_bad(said: str | bytes) -> None:
    with pytest.raises(BadMessage):
        parse(said)


def test_since_is_two_numbers() -> None:
    assert parse_since("1790000000000000:12") == (1_790_000_000_000_000, 12)
    for nonsense in ("", "1", "1:", ":1", "-1:2", "1:2:3", "a:b", "٣:٤", "9" * 30 + ":1"):
        assert parse_since(nonsense) is None


async def test_a_message_that_comes_with_the_timeout_is_not_overlooked() -> None:
    """Or a heartbeat would tell the seq of a message that its reader has not been sent."""
    box, late = Mailbox(Shelf()), message(4)
    loop = asyncio.get_running_loop()
    taking = asyncio.create_task(box.take(0))
    # Put in the turn in which the timeout strikes: one after the turn in which the waiting began.
    loop.call_soon(loop.call_soon, box.put, late)
    assert await taking is late
    assert await box.take(0) is None
