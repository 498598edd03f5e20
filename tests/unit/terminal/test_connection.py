"""A connection that the event loop has: replies, what is no reply, and what never shows."""

import asyncio
import io
import socket
import traceback
from collections.abc import AsyncIterator, Callable

import pytest
from rpyc.core import brine, consts
from rpyc.core.channel import Channel
from tests.unit.terminal.peer import LAST_SEQ, SERVE, Peer

from mt5kit.errors import TerminalTimeout, TerminalUnavailable
from mt5kit.secret import Secret
from mt5kit.terminal import wire
from mt5kit.terminal.answers import unpack
from mt5kit.terminal.connection import Connection

UNSHOWN = "the-secret-that-must-not-show"
TOO_LONG = Channel.FRAME_HEADER.pack(wire.MOST_BYTES + 1, 0)
HANG_UP = (consts.MSG_REQUEST, 0, (consts.HANDLE_CLOSE, (consts.LABEL_TUPLE, ())))
# What `rpyc.classic` would run here.
EVAL = (
    consts.MSG_REQUEST,
    0,
    (consts.HANDLE_CALL, (consts.LABEL_TUPLE, ((consts.LABEL_LOCAL_REF, SERVE),))),
)
RAISED = (consts.MSG_EXCEPTION, LAST_SEQ + 1, (("builtins", "TimeoutError"), (), (), "late"))


@pytest.fixture
async def peer() -> AsyncIterator[Peer]:
    async with Peer() as peer:
        yield peer


def ask(connection: Connection, timeout_s: float = 30.0) -> asyncio.Future[object]:
    return connection.ask("snapshot", 7, (1001, "S"), timeout_s)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.001)


async def test_a_call_is_one_request_and_its_reply(peer: Peer) -> None:
    connection = await peer.connect()
    for number in range(1, 4):
        reply = ask(connection)
        seq, args = await peer.asked()
        assert seq == LAST_SEQ + number
        assert args == ("snapshot", 7, 29.75, 1001, "S")
        peer.answer(seq, b"answer %d" % number)
        assert await reply == b"answer %d" % number
    assert not connection.stale()
    assert peer.lost == 0


async def test_long_requests_and_replies_are_compressed(peer: Peer) -> None:
    connection = await peer.connect()
    reply = connection.ask("history", 7, ("S" * 5000,), 30)
    seq, args = await peer.asked()
    assert args[3] == "S" * 5000
    peer.answer(seq, b"answer" * 100_000)
    assert await reply == b"answer" * 100_000


async def test_a_late_reply_is_dropped_and_the_connection_goes_on(peer: Peer) -> None:
    connection = await peer.connect()
    with pytest.raises(TerminalTimeout):
        await ask(connection, 0.0)
    late, _ = await peer.asked()
    reply = ask(connection)
    seq, _ = await peer.asked()
    peer.send(consts.MSG_EXCEPTION, late, "whatever")
    # What RPyC asked while it installed, without waiting for it.
    peer.send(consts.MSG_REPLY, 3, (consts.LABEL_VALUE, None))
    peer.answer(late, b"late")
    peer.answer(seq, b"in time")
    assert await reply == b"in time"
    # And once nobody waits at all.
    peer.answer(seq, b"again")
    reply = ask(connection)
    peer.answer((await peer.asked())[0], b"next")
    assert await reply == b"next"


async def test_a_reply_that_is_an_object_is_no_answer(peer: Peer) -> None:
    connection = await peer.connect()
    for boxed in ((consts.LABEL_REMOTE_REF, SERVE), (consts.LABEL_TUPLE, ())):
        reply = ask(connection)
        seq, _ = await peer.asked()
        peer.send(consts.MSG_REPLY, seq, boxed)
        with pytest.raises(TerminalUnavailable, match="something that is no answer"):
            unpack(await reply)
    assert not connection.stale()


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(wire.frame(brine.dump(HANG_UP)), id="hangs up"),
        pytest.param(wire.frame(brine.dump(EVAL)), id="wants something run"),
        pytest.param(wire.frame(brine.dump(RAISED)), id="raises"),
        pytest.param(wire.frame(b"nonsense"), id="no message"),
        pytest.param(TOO_LONG, id="too long"),
        pytest.param(Channel.FRAME_HEADER.pack(3, 1) + b"abc\n", id="does not unpack"),
        pytest.param(b"HTTP/1.1 400 Bad Request\r\n", id="HTTP"),
    ],
)
async def test_what_is_no_reply_cuts_the_connection(peer: Peer, sent: bytes) -> None:
    connection = await peer.connect()
    reply = ask(connection)
    await peer.asked()
    peer.socket.sendall(sent)
    with pytest.raises(TerminalUnavailable) as cut:
        await reply
    assert not isinstance(cut.value, TerminalTimeout)
    assert connection.stale()
    # Nothing is answered.
    assert await peer.hung_up_on() == b""
    await until(lambda: peer.lost == 1)


async def test_a_request_of_the_peer_cuts_an_idle_connection_too(peer: Peer) -> None:
    await peer.connect()
    peer.send(*EVAL)
    assert await peer.hung_up_on() == b""
    await until(lambda: peer.lost == 1)


async def test_a_peer_that_goes_ends_the_call_and_is_noticed(peer: Peer) -> None:
    connection = await peer.connect()
    reply = ask(connection)
    await peer.asked()
    peer.socket.shutdown(socket.SHUT_RDWR)
    with pytest.raises(TerminalUnavailable):
        await reply
    await until(lambda: peer.lost == 1)
    assert connection.stale()
    with pytest.raises(TerminalUnavailable):
        await ask(connection)
    assert peer.lost == 1


async def test_a_peer_that_has_just_gone_is_stale_before_the_loop_knows(peer: Peer) -> None:
    connection = await peer.connect()
    assert not connection.stale()
    peer.socket.close()
    assert connection.stale()
    assert peer.lost == 0


async def test_ending_it_ends_the_call_at_once(peer: Peer) -> None:
    connection = await peer.connect()
    reply = ask(connection)
    connection.abort()
    with pytest.raises(TerminalUnavailable):
        await reply
    await until(lambda: peer.lost == 1)


async def test_one_ended_before_the_loop_has_it_is_closed(peer: Peer) -> None:
    with pytest.raises(TerminalUnavailable):
        await peer.connect(Connection.abort)
    assert await peer.hung_up_on() == b""
    assert peer.lost == 0


@pytest.mark.parametrize(
    "why", ["late", "cut", "garbage", "gone", "ended", "no plain value", "no bytes"]
)
async def test_a_password_shows_in_no_failure(
    peer: Peer, why: str, written_log: io.StringIO
) -> None:
    asyncio.get_running_loop().set_debug(True)
    connection = await peer.connect()
    args: tuple[object, ...] = (1001, Secret(UNSHOWN), "S")
    if why == "ended":
        connection.abort()
    elif why == "no plain value":
        args = (*args, [UNSHOWN])
    elif why == "no bytes":
        args = (*args, f"{UNSHOWN}\ud800")
    reply = connection.ask("sign_in", 7, args, 0.0 if why == "late" else 30.0)
    if why == "cut":
        connection.abort()
    elif why == "garbage":
        peer.socket.sendall(UNSHOWN.encode())
    elif why == "gone":
        peer.socket.close()
    # This frame would show what it has made up.
    del args
    with pytest.raises(TerminalUnavailable) as failed:
        await reply
    lines = traceback.TracebackException.from_exception(failed.value, capture_locals=True)
    shown = ["".join(lines.format()), repr(connection), written_log.getvalue()]
    assert "failed" in shown[0]
    assert not [text for text in shown if UNSHOWN in text]
