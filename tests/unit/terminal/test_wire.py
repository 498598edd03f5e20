"""Frames and messages: RPyC's own are ours, and nothing but a reply is taken apart."""

import zlib
from itertools import pairwise
from types import FunctionType
from typing import Any

import pytest
import rpyc
from hypothesis import given
from hypothesis import strategies as st
from rpyc.core import brine, consts
from rpyc.core.channel import Channel
from rpyc.core.service import VoidService
from rpyc.core.stream import Stream

from mt5kit.terminal import wire
from mt5kit.terminal.wire import Frames, Handle, OutOfTurn, frame, read, request

SERVE: Handle = (f"{FunctionType.__module__}.{FunctionType.__name__}", 11, 22)
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
    | st.binary(),
    lambda inner: st.lists(inner, max_size=5).map(tuple),
    max_leaves=20,
)  # fmt: skip
ARGS = st.lists(PLAIN, max_size=10).map(tuple)
# Long enough for RPyC to compress, and short.
BODIES = st.lists(
    st.binary(max_size=40) | st.binary(min_size=3001, max_size=3010), min_size=1, max_size=6
)
LENGTHS = (0, 1, 2, 3, 4, 5, 255, 256, 70_000)


class Written(Stream):  # type: ignore[misc]  # rpyc ships no types
    """What RPyC writes to a socket."""

    MAX_IO_CHUNK = consts.STREAM_CHUNK
    closed = False

    def __init__(self) -> None:
        self.data = b""

    def write(self, data: bytes) -> None:
        self.data += data

    def close(self) -> None:
        pass


@given(ARGS)
def test_a_request_is_what_rpyc_would_send(args: tuple[object, ...]) -> None:
    written = Written()
    conn = rpyc.core.protocol.Connection(VoidService(), Channel(written))
    proxy = conn._unbox((consts.LABEL_REMOTE_REF, SERVE))
    rpyc.async_(proxy)(*args)
    assert written.data == request(0, SERVE, args)


@given(st.integers(min_value=0, max_value=2**70), ARGS)
def test_a_request_has_its_number(seq: int, args: tuple[object, ...]) -> None:
    (body,) = Frames().feed(request(seq, SERVE, args))
    assert brine.load(body)[1] == seq


@given(BODIES, st.data())
def test_frames_come_whole_however_they_are_cut(bodies: list[bytes], data: st.DataObject) -> None:
    written = Written()
    for body in bodies:
        Channel(written).send(body)
    sent = written.data
    assert sent == b"".join(map(frame, bodies))
    places = data.draw(st.sets(st.integers(0, len(sent)), max_size=20))
    cuts = [0, *sorted(places), len(sent)]
    frames = Frames()
    got = [body for start, end in pairwise(cuts) for body in frames.feed(sent[start:end])]
    assert got == bodies


@pytest.mark.parametrize("size", [0, 7, 3001])
def test_a_frame_cut_at_any_byte_comes_whole(size: int) -> None:
    sent = frame(b"x" * size)
    for cut in range(len(sent)):
        frames = Frames()
        assert not list(frames.feed(sent[:cut]))
        assert list(frames.feed(sent[cut:])) == [b"x" * size]


def test_one_byte_at_a_time_is_a_frame_at_last() -> None:
    frames = Frames()
    sent = frame(b"abc") + frame(b"y" * 5000)
    got = [body for place in range(len(sent)) for body in frames.feed(sent[place : place + 1])]
    assert got == [b"abc", b"y" * 5000]


def header(length: int, compressed: int = 0) -> bytes:
    packed: bytes = Channel.FRAME_HEADER.pack(length, compressed)
    return packed


SQUEEZED = zlib.compress(b"z" * 4000)


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(header(wire.MOST_BYTES + 1), id="longer than may be"),
        pytest.param(b"HTTP/1.1 400 Bad Request\r\n", id="HTTP"),
        pytest.param(header(len(SQUEEZED), 2) + SQUEEZED + b"\n", id="neither compressed nor not"),
        pytest.param(header(1) + b"ab", id="no newline"),
        pytest.param(header(3, 1) + b"abc\n", id="not compressed"),
        pytest.param(header(len(SQUEEZED) - 1, 1) + SQUEEZED[:-1] + b"\n", id="cut short"),
    ],
)
def test_what_is_no_frame_is_out_of_turn(sent: bytes) -> None:
    frames = Frames()
    feeding = frames.feed(frame(b"before") + sent)
    assert next(feeding) == b"before"
    with pytest.raises(OutOfTurn):
        next(feeding)


def test_a_frame_may_not_unpack_to_more_than_it_may_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "MOST_BYTES", 3999)
    with pytest.raises(OutOfTurn):
        list(Frames().feed(frame(b"z" * 4000)))
    assert list(Frames().feed(frame(b"z" * 3998))) == [b"z" * 3998]


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("seq", [0, 159, 160, 10**9])
def test_a_reply_gives_its_bytes(length: int, seq: int) -> None:
    value = b"v" * length
    body = brine.dump((consts.MSG_REPLY, seq, (consts.LABEL_VALUE, value)))
    assert read(body) == (seq, value, False)


@pytest.mark.parametrize(
    "boxed",
    [
        (consts.LABEL_REMOTE_REF, SERVE),
        (consts.LABEL_LOCAL_REF, SERVE),
        (consts.LABEL_TUPLE, ((consts.LABEL_VALUE, b"x"),)),
        (consts.LABEL_VALUE, "text"),
        (consts.LABEL_VALUE, (b"x",)),
        (consts.LABEL_VALUE, None),
        (99, b"x"),
        b"x",
    ],
)
def test_a_reply_of_anything_else_holds_nothing(boxed: object) -> None:
    assert read(brine.dump((consts.MSG_REPLY, 5, boxed))) == (5, None, False)


def test_what_is_no_bytes_is_not_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    body = brine.dump((consts.MSG_REPLY, 5, (consts.LABEL_VALUE, (b"x",) * 300)))

    def load(_body: bytes) -> Any:
        raise AssertionError("it was loaded")

    monkeypatch.setattr(brine, "load", load)
    assert read(body) == (5, None, False)


def test_a_raised_exception_is_no_value() -> None:
    body = brine.dump((consts.MSG_EXCEPTION, 300, (("builtins", "OSError"), (b"x",), (), "tb")))
    assert read(body) == (300, None, True)


@pytest.mark.parametrize(
    "body",
    [
        brine.dump((consts.MSG_REQUEST, 1, (consts.HANDLE_CLOSE, (consts.LABEL_TUPLE, ())))),
        brine.dump((consts.MSG_REQUEST, 1, (consts.HANDLE_GETROOT, (consts.LABEL_TUPLE, ())))),
        brine.dump((9, 1, (consts.LABEL_VALUE, b"x"))),
        brine.dump((consts.MSG_REPLY, b"1", (consts.LABEL_VALUE, b"x"))),
        brine.dump((consts.MSG_REPLY, (consts.LABEL_VALUE, b"x"))),
        brine.TAG_TUP3 + brine.dump(consts.MSG_REPLY) + brine.TAG_INT_L1 + b"\x02a1",
        b"",
    ],
)
def test_what_is_no_reply_is_out_of_turn(body: bytes) -> None:
    with pytest.raises(OutOfTurn):
        read(body)


@given(st.binary(max_size=60) | st.binary(max_size=60).map(lambda rest: b"\x12\x52" + rest))
def test_whatever_comes_is_a_reply_or_out_of_turn(body: bytes) -> None:
    try:
        reply = read(body)
    except OutOfTurn:
        return
    assert isinstance(reply.seq, int)
    assert reply.value is None or type(reply.value) is bytes
