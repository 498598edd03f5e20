"""The stream benchmark's client reads frames however they are cut, and says why it was hung up."""

import asyncio
import random
from typing import Any

import pytest
from tests.load import stream_crowd
from tests.load.stream_broadcast import message
from tests.load.stream_client import HEAD_BYTES, Client, Seat
from tests.load.stream_crowd import Crowd
from tests.load.stream_latency import read_head
from websockets.asyncio.server import ServerConnection, serve

SEED = 20261120
WELCOME = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"
SEAT = Seat("127.0.0.1", 1, "/ws/account/account-1?ticket=t", "account-1")


class Wire(asyncio.Transport):
    """Keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.aborted = False

    def write(self, data: Any) -> None:
        self.written.append(bytes(data))

    def abort(self) -> None:
        self.aborted = True


def frame(payload: bytes, first: int = 0x81) -> bytes:
    """As a server sends it."""
    size = len(payload)
    if size < 126:
        return bytes((first, size)) + payload
    if size < 1 << 16:
        return bytes((first, 126)) + size.to_bytes(2, "big") + payload
    return bytes((first, 127)) + size.to_bytes(8, "big") + payload


def connected(*, recording: bool = True) -> tuple[Client, Wire]:
    client, wire = Client(SEAT), Wire()
    client.connection_made(wire)
    client.got = [] if recording else None
    return client, wire


async def test_messages_are_the_same_however_their_bytes_are_cut() -> None:
    rng = random.Random(SEED)
    sizes = (2, 125, 126, 127, 199, 200, 201, 65_535, 65_536, 70_000, 3)
    payloads = [bytes([65 + number]) * size for number, size in enumerate(sizes)]
    stream = WELCOME + b"".join(map(frame, payloads))
    for most in (1, 3, 700, 10_000, len(stream)):
        client, _ = connected()
        at = 0
        # Byte by byte only until the frames are long.
        while at < len(stream):
            step = rng.randint(1, most) if at < 1000 else rng.randint(1, max(most, 5000))
            client.data_received(stream[at : at + step])
            at += step
        assert client.got is not None
        told = [(one.size, one.head) for one in client.got]
        expected = [(len(payload), payload[:HEAD_BYTES]) for payload in payloads]
        assert told == expected, f"seed {SEED}, at most {most} bytes at a time"


async def test_it_asks_for_the_upgrade_of_its_seat() -> None:
    _, wire = connected()
    assert wire.written[0].startswith(b"GET /ws/account/account-1?ticket=t HTTP/1.1\r\n")


async def test_it_is_greeted_by_the_snapshot_and_keeps_it_whole() -> None:
    client, _ = connected(recording=False)
    snapshot = b'{"type":"snapshot","data":' + b"1" * 500 + b"}"
    client.data_received(WELCOME + frame(b'{"type":"connected"}'))
    assert not client.greeted.done()
    client.data_received(frame(snapshot) + frame(b'{"type":"snapshot","data":2}'))
    await client.greeted
    assert client.greeting == snapshot


async def test_a_ping_is_answered_with_what_it_said() -> None:
    client, wire = connected()
    client.data_received(WELCOME + frame(b"abc", 0x89) + frame(b"after"))
    assert wire.written[1] == bytes((0x8A, 0x83, 0, 0, 0, 0)) + b"abc"
    assert client.got is not None
    assert [one.head for one in client.got] == [b"after"]


async def test_a_refused_handshake_is_told_in_the_servers_words() -> None:
    client, wire = connected()
    client.data_received(b"HTTP/1.1 403 Forbidden\r\n\r\nno")
    assert wire.aborted
    client.connection_lost(None)
    with pytest.raises(RuntimeError, match=r"account-1: HTTP/1.1 403 Forbidden"):
        await client.greeted


async def test_a_close_frame_is_told_with_its_code_and_reason() -> None:
    client, wire = connected()
    client.data_received(WELCOME + frame((4404).to_bytes(2, "big") + b"no such account", 0x88))
    assert wire.aborted
    client.connection_lost(None)
    with pytest.raises(RuntimeError, match="closed with 4404: no such account"):
        await client.greeted


async def test_a_crowd_notes_what_comes_while_it_records_and_who_was_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stream_crowd, "GRACE_S", 0.05)
    recording = asyncio.Event()

    async def talk(connection: ServerConnection) -> None:
        assert connection.request is not None
        await connection.send('{"type":"snapshot"}')
        await recording.wait()
        await connection.send("x" * 1000)
        if connection.request.path == "/goes":
            await connection.close(1012, "restart")
        await connection.wait_closed()

    async with serve(talk, "127.0.0.1", 0, compression=None) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        crowd = Crowd()
        await crowd.join([Seat("127.0.0.1", port, path, path) for path in ("/stays", "/goes")])
        asyncio.get_running_loop().call_later(0.05, recording.set)
        first = await crowd.record(0.3)
        assert [[one.size for one in each.got] for each in first.heard] == [[1000], [1000]]
        assert first.deliveries == 2
        assert list(first.lost) == ["closed with 1012: restart"]
        second = await crowd.record(0.05)
        assert second.deliveries == 0
        crowd.leave_all()
        assert crowd.clients == []


async def test_who_is_turned_away_comes_again_and_is_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stream_crowd, "AGAIN_S", 0.01)
    came: list[ServerConnection] = []

    async def busy_at_first(connection: ServerConnection) -> None:
        came.append(connection)
        if len(came) == 1:
            await connection.close(1013, "full")
            return
        await connection.send('{"type":"snapshot"}')
        await connection.wait_closed()

    async with serve(busy_at_first, "127.0.0.1", 0, compression=None) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        crowd = Crowd()
        await crowd.join([Seat("127.0.0.1", port, "/", "account-1")])
        assert (len(came), crowd.refused, len(crowd.clients)) == (2, 1, 1)
        crowd.leave_all()


async def test_nobody_joins_where_a_client_is_refused_to_the_last(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stream_crowd, "AGAIN_S", 0.01)

    async def refuse(connection: ServerConnection) -> None:
        await connection.close(1013, "full")

    async with serve(refuse, "127.0.0.1", 0, compression=None) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        with pytest.raises(ExceptionGroup) as raised:
            await Crowd().join([Seat("127.0.0.1", port, "/", "account-1")])
        assert "closed with 1013: full" in str(raised.value.exceptions[0])


@pytest.mark.parametrize("size", [130, 2241, 70_000])
def test_the_bare_broadcast_sends_envelopes_of_the_size_that_was_asked_for(size: int) -> None:
    text = message("account-50", 12345, size)
    assert len(text.encode()) == size
    head = read_head(text.encode()[:HEAD_BYTES])
    assert (head.kind, head.epoch, head.seq) == ("position_update", 1, 12345)
