"""Readers that do not read, on real sockets with small buffers."""

import asyncio
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import uvloop
from tests.raw_client import RawClient
from tests.session_fakes import RULES, SessionServer
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from websocket_pool.close_codes import CloseCode
from websocket_pool.mailbox import BACKLOG_BYTES
from websocket_pool.transport import RECEIVE_BUFFER_BYTES, SEND_BUFFER_BYTES, USER_TIMEOUT_MS

SIZE = 20_000
HIGH_WATER = 64 * 1024
LOOPS = pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop])


@contextmanager
def clients(server: SessionServer, healthy: int, **stalled: Any) -> Iterator[list[RawClient]]:
    """Healthy ones that have taken their snapshot, and at the end one that has not read."""
    before = server.do(lambda: len(server.sessions))
    with ExitStack() as stack:
        made = [stack.enter_context(closing(RawClient(server.address))) for _ in range(healthy)]
        late = RawClient(server.address, receive_buffer=4096, **stalled)
        stack.enter_context(closing(late))
        for one in made:
            assert [one.message()["type"] for _ in range(2)] == ["connected", "snapshot"]
        until(lambda: server.do(lambda: len(server.line.watchers)) > before + healthy)
        yield [*made, late]


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who does not take a close frame at once is cut."""
    monkeypatch.setattr("websocket_pool.session._CLOSE_PATIENCE_S", 0.1)
    monkeypatch.setattr("websocket_pool.transport.CLOSE_PATIENCE_S", 0.1)


def until(condition: Callable[[], bool]) -> None:
    patience = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < patience
        time.sleep(0.005)


def backlog(server: SessionServer) -> int:
    return server.do(
        lambda: max(session._outbox._mailbox._bytes for session in server.sessions),
    )


def unsent(server: SessionServer) -> int:
    transports = server.transports
    return server.do(lambda: max(one.get_write_buffer_size() for one in transports))


@LOOPS
def test_a_stalled_reader_delays_nobody_and_gets_one_snapshot_when_it_reads(
    loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    with (
        SessionServer(loop_factory=loop) as server,
        clients(server, healthy=3) as [*healthy, stalled],
    ):
        for seq in range(1, 101):
            server.advance(SIZE)
            assert [one.message()["seq"] for one in healthy] == [seq] * 3
            assert backlog(server) <= BACKLOG_BYTES + SIZE + 1_000
            assert unsent(server) <= HIGH_WATER + SIZE + 1_000
        taken = stalled.messages_until(100)
        *first, last = taken
        assert [one["seq"] for one in first] == [0, *range(len(first) - 1)]
        assert last["type"] == "snapshot"
        assert last["data"]["conflated"]
        assert len(first) < 100
        server.advance(SIZE)
        assert stalled.message()["seq"] == healthy[0].message()["seq"] == 101


@pytest.mark.parametrize(
    ("loop", "size"),
    [
        (asyncio.new_event_loop, SIZE),
        (asyncio.new_event_loop, 2_000),
        (uvloop.new_event_loop, SIZE),
    ],
    ids=["backlog", "only-in-the-kernel", "uvloop"],
)
def test_who_goes_on_stalling_is_cut_without_a_close_frame(
    loop: Callable[[], asyncio.AbstractEventLoop], size: int
) -> None:
    rules = replace(RULES, stall_s=0.3, heartbeat_s=0.2)
    with (
        SessionServer(rules, loop_factory=loop) as server,
        clients(server, healthy=1) as [healthy, stalled],
    ):
        for _ in range(30):
            server.advance(size)
        if size < SIZE:
            assert unsent(server) == backlog(server) == 0
        until(lambda: bool(server.ended))
        assert server.ended == {CloseCode.SLOW: 1}
        assert [one["seq"] for one in healthy.messages_until(30)][-1] == 30
        with pytest.raises((EOFError, ConnectionResetError)):
            stalled.messages_until(31)
        assert len(server.transports) == 1


def test_a_replay_larger_than_the_backlog_reaches_who_reads_late() -> None:
    with SessionServer() as server:
        for _ in range(45):
            server.advance(SIZE)
        with clients(server, healthy=0, query="7:0") as [late]:
            assert [one["seq"] for one in late.messages_until(45)[:1]] == [45]
            assert [late.message()["seq"] for _ in range(45)] == [*range(1, 46)]


@pytest.mark.parametrize(
    ("opcode", "payload"),
    [(9, bytes(125)), (1, b'{"type":"ping"}'), (1, b'{"type":"refresh"}')],
    ids=["frames", "pings", "refreshes"],
)
def test_a_flood_without_reading_is_bounded(opcode: int, payload: bytes) -> None:
    with SessionServer() as server, clients(server, healthy=1) as [healthy, flooder]:
        server.do(lambda: setattr(server.line, "pad", SIZE))
        for seq in range(1, 6):
            flooder.say(opcode, payload, times=2_000)
            server.advance()
            assert healthy.message()["seq"] == seq
        # Each chunk of the flood is answered at one go.
        assert unsent(server) <= HIGH_WATER + 2 * RECEIVE_BUFFER_BYTES + SIZE
        assert backlog(server) <= BACKLOG_BYTES + SIZE + 5_000


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    ("loop", "size"), [(asyncio.new_event_loop, 0), (uvloop.new_event_loop, SIZE)]
)
def test_an_end_waits_for_nobody_and_leaves_no_connection(
    loop: Callable[[], asyncio.AbstractEventLoop], size: int
) -> None:
    with (
        SessionServer(loop_factory=loop) as server,
        clients(server, healthy=1) as [healthy, _stalled],
    ):
        for seq in range(1, 31):
            server.advance(size)
            assert healthy.message()["seq"] == seq
        reason = "this replica restarts; reconnect after 740 ms"
        for session in server.sessions:
            server.do(partial(session.end, CloseCode.RESTART, reason))
        assert healthy.frame() == (8, struct.pack("!H", 1012) + reason.encode())
        healthy.say(8, struct.pack("!H", 1012))
        until(lambda: server.ended == {CloseCode.RESTART: 2})
        if size:
            until(lambda: not server.transports)


def test_the_end_comes_behind_what_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    # This is about order; under load a reader may be as slow as one that does not read.
    monkeypatch.setattr("websocket_pool.session._CLOSE_PATIENCE_S", 20)
    monkeypatch.setattr("websocket_pool.transport.CLOSE_PATIENCE_S", 20)
    with SessionServer() as server, clients(server, healthy=0) as [late]:
        for _ in range(18):
            server.advance(SIZE)
        assert backlog(server) > HIGH_WATER + SIZE
        server.do(lambda: server.sessions[0].end(CloseCode.RESTART, ""))
        assert [late.message()["seq"] for _ in range(20)] == [0, *range(19)]
        assert late.frame()[0] == 8


@pytest.mark.usefixtures("impatient")
def test_who_says_too_much_without_reading_leaves_no_connection() -> None:
    """uvicorn would wait for ever until its close frame is taken."""
    with SessionServer() as server, clients(server, healthy=0) as [stalled]:
        for _ in range(30):
            server.advance(SIZE)
        stalled.send(bytes((0x81, 0xFE)) + struct.pack("!H", 5_000) + bytes(5_004))
        until(lambda: bool(server.ended))
        assert server.ended == {CloseCode.TOO_LARGE: 1}
        until(lambda: not server.transports)


def test_half_a_connection_is_none() -> None:
    rules = replace(RULES, heartbeat_s=0.05)
    with SessionServer(rules) as server, clients(server, healthy=0) as [stalled]:
        for _ in range(30):
            server.advance(SIZE)
        stalled.half_close()
        until(lambda: not server.transports)
        assert server.do(lambda: not server.line.watchers)


def test_a_client_that_has_everything_and_answers_no_ping_is_cut() -> None:
    server = SessionServer(ws_ping_interval=0.05, ws_ping_timeout=0.1)
    with server, clients(server, healthy=0):
        until(lambda: server.ended == {CloseCode.SLOW: 1})


def test_who_still_has_to_take_something_is_not_asked_for_a_pong() -> None:
    server = SessionServer(ws_ping_interval=0.05, ws_ping_timeout=0.05)
    with server, clients(server, healthy=0) as [stalled]:
        for _ in range(30):
            server.advance(SIZE)
        timeouts: list[float] = []
        until(lambda: server.do(lambda: _ping_timers(server, timeouts)) > 3)
        assert not server.ended
        assert stalled.messages_until(30)[-1]["seq"] == 30


def _ping_timers(server: SessionServer, seen: list[float]) -> int:
    for one in server.server.server_state.connections:
        assert isinstance(one, WebSocketsSansIOProtocol)
        if one.pong_timer is not None and one.pong_timer.when() not in seen:
            seen.append(one.pong_timer.when())
    return len(seen)


@LOOPS
def test_accepted_sockets_inherit_what_the_listener_was_given(
    loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    with SessionServer(loop_factory=loop) as server, clients(server, healthy=0):
        [transport] = server.transports
        fd = transport.get_extra_info("socket").fileno()
        with socket.socket(fileno=socket.dup(fd)) as accepted:
            # Linux doubles what it is asked for.
            for option, asked in (
                (socket.SO_SNDBUF, SEND_BUFFER_BYTES),
                (socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES),
            ):
                assert accepted.getsockopt(socket.SOL_SOCKET, option) == 2 * asked
            timeout = accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
            assert timeout == USER_TIMEOUT_MS
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_a_server_without_a_wire_serves_slow_readers_too() -> None:
    rules = replace(RULES, stall_s=0.5)
    with (
        SessionServer(rules, ws=WebSocketsSansIOProtocol) as server,
        clients(server, healthy=1) as [healthy, _stalled],
    ):
        for seq in range(1, 41):
            server.advance(SIZE)
            assert healthy.message()["seq"] == seq
        until(lambda: server.ended == {CloseCode.SLOW: 1})
