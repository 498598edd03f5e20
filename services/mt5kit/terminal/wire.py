"""RPyC 5 on the wire, as far as one call needs it: frames, a request, its reply.

A frame is a header (length, compressed or not), a body and a newline. A body is a message in
brine, RPyC's own encoding of plain values. Of what the other side sends, only the plain bytes of
a reply are ever taken apart: nothing can make an object here, or have us do anything.
"""

import struct
import zlib
from collections.abc import Iterator
from typing import Final, NamedTuple, TypeAlias

from rpyc.core import brine, consts
from rpyc.core.channel import Channel

# Thousands of positions are some megabytes; beyond this somebody only wants our memory.
MOST_BYTES: Final = 64 * 1024 * 1024

# The name under which the other side holds an object: class, id of the class, id of the object.
Handle: TypeAlias = tuple[str, int, int]

_HEADER: Final[struct.Struct] = Channel.FRAME_HEADER
_FLUSHER: Final[bytes] = Channel.FLUSHER
_VALUE: Final[bytes] = brine.dump((consts.LABEL_VALUE, b""))[:-1]
_BYTES: Final = frozenset({
    brine.TAG_EMPTY_STR, brine.TAG_STR1, brine.TAG_STR2, brine.TAG_STR3, brine.TAG_STR4,
    brine.TAG_STR_L1, brine.TAG_STR_L4,
})  # fmt: skip


class OutOfTurn(Exception):
    """What came is no reply; why, in words that hold nothing of it."""


class Reply(NamedTuple):
    """A reply to request `seq`; `value` is None unless it holds plain bytes."""

    seq: int
    value: bytes | None
    failed: bool


def request(seq: int, function: Handle, args: tuple[object, ...]) -> bytes:
    """The frame that calls a function of the other side.

    Raises:
        TypeError: An argument is no plain value.
        UnicodeEncodeError: A text has no bytes.
    """
    called = (consts.LABEL_LOCAL_REF, function)
    boxed = (called, (consts.LABEL_VALUE, args), (consts.LABEL_VALUE, ()))
    message = (consts.HANDLE_CALL, (consts.LABEL_TUPLE, boxed))
    return frame(brine.dump((consts.MSG_REQUEST, seq, message)))


def frame(body: bytes) -> bytes:
    """A body as RPyC sends it: a long one compressed."""
    compressed = len(body) > Channel.COMPRESSION_THRESHOLD
    if compressed:
        body = zlib.compress(body, Channel.COMPRESSION_LEVEL)
    return _HEADER.pack(len(body), compressed) + body + _FLUSHER


class Frames:
    """Puts frames together from what arrives, however it was cut on its way."""

    def __init__(self) -> None:
        self._held = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The bodies that `data` makes whole; take them all.

        Raises:
            OutOfTurn: This is no frame, or one of more than MOST_BYTES.
        """
        held = self._held
        held += data
        while len(held) >= _HEADER.size:
            length, compressed = _HEADER.unpack_from(held)
            if length > MOST_BYTES or compressed > 1:
                raise OutOfTurn("it sent no frame of a length that can be")
            end = _HEADER.size + length
            if len(held) <= end:
                return
            body = bytes(held[_HEADER.size : end])
            if held[end : end + 1] != _FLUSHER:
                raise OutOfTurn("it sent a frame without its end")
            del held[: end + 1]
            yield _inflated(body) if compressed else body


def _inflated(body: bytes) -> bytes:
    inflater = zlib.decompressobj()
    try:
        whole = inflater.decompress(body, MOST_BYTES)
    except zlib.error:
        raise OutOfTurn("it sent a frame that does not unpack") from None
    if not inflater.eof:
        raise OutOfTurn("it sent a frame that unpacks to too much, or is cut short")
    return whole


def read(body: bytes) -> Reply:
    """A body as a reply.

    Raises:
        OutOfTurn: It is none: the other side hangs up, wants something of us, or talks nonsense.
    """
    kind = brine.IMM_INTS_LOADER.get(body[1:2])
    if body[:1] != brine.TAG_TUP3 or kind not in {consts.MSG_REPLY, consts.MSG_EXCEPTION}:
        known = kind == consts.MSG_REQUEST
        raise OutOfTurn("it hung up or asked for something" if known else "it sent no message")
    try:
        seq, rest = _sequence(body)
        if kind == consts.MSG_REPLY and body.startswith(_VALUE, rest):
            held = body[rest + len(_VALUE) :]
            # Loading anything else could keep us busy for seconds.
            if held[:1] in _BYTES:
                return Reply(seq, brine.load(held), failed=False)
    except (IndexError, ValueError, struct.error):
        raise OutOfTurn("it sent a message that cannot be read") from None
    return Reply(seq, None, failed=kind == consts.MSG_EXCEPTION)


def _sequence(body: bytes) -> tuple[int, int]:
    """The number of the request that is answered, and where the rest begins."""
    small: int | None = brine.IMM_INTS_LOADER.get(body[2:3])
    if small is not None:
        return small, 3
    if body[2:3] != brine.TAG_INT_L1:
        raise ValueError("no number")
    end = 4 + body[3]
    return int(body[4:end]), end
