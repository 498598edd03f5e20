import json

import pytest
from websockets.frames import Frame, Opcode

from websocket_pool.mailbox import BACKLOG_BYTES, CONTROL_MESSAGES, Mailbox
from websocket_pool.messages import (
    Auth,
    BadMessage,
    Message,
    Ping,
    Place,
    Refresh,
    encode,
    moved,
    parse,
    parse_since,
)


def message(seq: int, kind: str = "account_update", size: int = 0) -> Message:
    return encode(kind, Place("acc", 5, seq), 0, {"pad": "x" * size})


class Shelf:
    """The account of the moment."""

    def __init__(self) -> None:
        self.seq = 0

    def snapshot(self) -> Message:
        return message(self.seq, "snapshot")

    def place(self) -> Place:
        return Place("acc", 5, self.seq)

    def mailbox(self) -> Mailbox:
        return Mailbox(self.snapshot, self.place)


def seq_of(taken: Message) -> int:
    return int(json.loads(taken.text)["seq"])


def all_of(mailbox: Mailbox) -> list[Message]:
    taken = []
    while mailbox:
        one = mailbox.take()
        assert one is not None
        taken.append(one)
    assert mailbox.take() is None
    return taken


def told(messages: list[Message]) -> list[tuple[str, int]]:
    return [(one.type, seq_of(one)) for one in messages]


def test_messages_leave_in_order() -> None:
    mailbox = Shelf().mailbox()
    for seq in (2, 3):
        mailbox.put(message(seq))
    mailbox.greet(message(1))
    assert [seq_of(one) for one in all_of(mailbox)] == [1, 2, 3]


def test_a_backlog_becomes_one_snapshot_of_the_moment_it_is_taken() -> None:
    shelf = Shelf()
    mailbox = shelf.mailbox()
    mailbox.greet(message(0, "connected"))
    most = 0
    for shelf.seq in range(1, 40):
        mailbox.put(message(shelf.seq, size=20_000))
        most = max(most, mailbox._bytes)
    assert BACKLOG_BYTES < most <= BACKLOG_BYTES + 21_000
    shelf.seq = 41
    assert told(all_of(mailbox)) == [("connected", 0), ("snapshot", 41)]
    mailbox.put(message(42))
    assert told(all_of(mailbox)) == [("account_update", 42)]


def test_what_was_said_besides_a_backlog_is_never_ahead_of_its_reader() -> None:
    """A pong made at seq 10 would tell a reader who stands at 0 that he has missed ten."""
    shelf = Shelf()
    mailbox = shelf.mailbox()
    mailbox.put(message(0, "pong"))
    for shelf.seq in range(1, 40):
        mailbox.put(message(shelf.seq, size=20_000))
        if shelf.seq in {10, 30}:
            mailbox.put(message(shelf.seq, "pong"))
    expected = [("pong", 0), ("snapshot", 39), ("pong", 39), ("pong", 39)]
    assert told(all_of(mailbox)) == expected


def test_one_large_message_alone_is_no_backlog() -> None:
    mailbox = Shelf().mailbox()
    mailbox.put(message(0, "connected"))
    mailbox.put(message(1, "snapshot", size=2 * BACKLOG_BYTES))
    assert [seq_of(one) for one in all_of(mailbox)] == [0, 1]


def test_a_whole_replay_leaves_whole() -> None:
    shelf = Shelf()
    mailbox = shelf.mailbox()
    for seq in range(500):
        mailbox.greet(message(seq, size=2_000))
    for shelf.seq in range(500, 600):
        mailbox.put(message(shelf.seq, size=2_000))
    assert [seq_of(one) for one in all_of(mailbox)] == [*range(600)]


def test_pongs_that_nobody_takes_are_bounded() -> None:
    mailbox = Shelf().mailbox()
    for _ in range(10 * CONTROL_MESSAGES):
        mailbox.put(message(0, "pong"))
    assert len(all_of(mailbox)) == CONTROL_MESSAGES
    mailbox.put(message(0, "pong"))
    assert len(all_of(mailbox)) == 1


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


@pytest.mark.parametrize("size", [1, 125, 126, 127, 0xFFFF, 0x10000, 300_000])
def test_the_frame_is_what_a_websocket_library_makes(size: int) -> None:
    one = Message.of("pong", b"x" * size)
    theirs = Frame(Opcode.TEXT, b"x" * size).serialize(mask=False)
    assert (one.frame, one.size, one.payload) == (theirs, size, b"x" * size)


def test_a_message_from_elsewhere_is_as_it_was_made() -> None:
    made = message(3)
    again = Message.of("account_update", made.payload, 17)
    assert (again.frame, again.state, again.seen_ms) == (made.frame, True, 17)
    assert not Message.of("pong", b"{}").state
    assert again.late().frame is again.frame
    assert again.late().seen_ms is None


def test_a_moved_message_says_the_same_elsewhere() -> None:
    before = json.loads(message(3).text)
    after = json.loads(moved(message(3), Place("acc", 6, 1)).text)
    assert after == before | {"epoch": 6, "seq": 1}


def test_a_status_may_be_about_the_connection() -> None:
    assert encode("status", Place("acc", 5, 9), 0, {}).state
    assert not encode("status", Place("acc", 5, 9), 0, {}, state=False).state


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
