"""A numbered message on its way through Redis to the replicas that follow the account."""

import msgspec

from mt5kit.state.redis import Frame
from websocket_pool.line import Numbered
from websocket_pool.messages import NUMBERED, Message


class NotUnderstood(Exception):
    """What another replica says is of a version that this one does not know."""


class _Head(msgspec.Struct, frozen=True):
    type: str
    at_ms: int
    look_ms: int
    seen_ms: int | None


def frame_of(numbered: Numbered) -> Frame:
    """What is published of a message."""
    message = numbered.message
    head = _Head(message.type, numbered.at_ms, numbered.look_ms, message.seen_ms)
    return Frame(numbered.seq, msgspec.json.encode(head), message.payload)


def numbered_of(frame: Frame, *, live: bool) -> Numbered:
    """The message that another replica has published.

    Args:
        frame: As it was published.
        live: Whether it comes as it is made: only then does its age tell of the delivery.

    Raises:
        NotUnderstood: It is none of ours.
    """
    try:
        head = msgspec.json.decode(frame.head, type=_Head)
    except msgspec.DecodeError as odd:
        raise NotUnderstood(f"message {frame.seq}: {odd}") from odd
    if head.type not in NUMBERED:
        raise NotUnderstood(f"message {frame.seq} is of the type {head.type!r}")
    message = Message.of(head.type, frame.text, head.seen_ms if live else None)
    return Numbered(frame.seq, head.at_ms, head.look_ms, message)
