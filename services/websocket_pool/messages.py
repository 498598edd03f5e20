"""The wire: what is sent, encoded once for all watchers, and what clients may say."""

import copy
import re
import struct
from enum import StrEnum
from typing import Final

import msgspec

from mt5kit.domain.instants import iso_utc

ACCOUNT_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")

LARGEST_CLIENT_MESSAGE: Final = 4096
"""Bytes. The longest honest one is an `auth` with a JWT; pools read no more into memory."""


class Kind(StrEnum):
    """The numbered messages: each advances the account's `seq` by one."""

    STATUS = "status"
    POSITIONS = "position_update"
    ORDERS = "order_update"
    ACCOUNT = "account_update"


NUMBERED: Final = frozenset(kind.value for kind in Kind)
"""The wire names of the kinds."""


class Message:
    """An encoded message, shared by every socket it goes to.

    It is framed once, and the frame is the only copy that is kept: what is written to each socket
    are these very bytes.

    Args:
        type: Its wire name.
        payload: The JSON in UTF-8.
        state: Whether it tells of the account (`snapshot` and the numbered ones), so that a newer
            snapshot makes it superfluous.
        seen_ms: When the terminal saw the change it tells of, if it tells of one.
    """

    __slots__ = ("frame", "seen_ms", "size", "state", "type")

    def __init__(
        self,
        type: str,  # noqa: A002 - the envelope's word
        payload: bytes,
        state: bool,
        seen_ms: int | None = None,
    ) -> None:
        self.type = type
        self.size = len(payload)
        self.state = state
        self.seen_ms = seen_ms
        self.frame = text_frame(payload)
        """The whole unmasked WebSocket frame, uncompressed."""

    @classmethod
    def of(cls, type: str, payload: bytes, seen_ms: int | None = None) -> "Message":  # noqa: A002
        """A message that was encoded elsewhere; its type says whether it tells of the account."""
        return cls(type, payload, _is_state(type), seen_ms)

    def late(self) -> "Message":
        """The same to a reader who was away: its age is no delivery time."""
        late = copy.copy(self)
        late.seen_ms = None
        return late

    @property
    def payload(self) -> bytes:
        """The JSON; a copy."""
        return self.frame[-self.size :]

    @property
    def text(self) -> str:
        """The JSON; a copy."""
        return self.payload.decode()


class Place(msgspec.Struct, frozen=True):
    """Where in an account's line a message stands."""

    account_id: str
    epoch: int
    seq: int


class _Envelope(msgspec.Struct):
    """Contracts §4: what every message to a client looks like."""

    type: str
    account_id: str
    epoch: int
    seq: int
    ts: str
    data: msgspec.Raw


_envelopes: Final = msgspec.json.Decoder(_Envelope)
_encoder: Final = msgspec.json.Encoder()


def encode(
    kind: str,
    place: Place,
    ts_ms: int,
    data: object,
    *,
    changed_ms: int | None = None,
    state: bool | None = None,
) -> Message:
    """A message in the envelope of contracts §4.

    Args:
        kind: The wire name.
        place: Where it stands.
        ts_ms: Its instant, UTC epoch milliseconds.
        data: Anything msgspec encodes.
        changed_ms: When the terminal saw the change, for state.
        state: False for a `status` that is about the connection and advances nothing; by default
            what the wire name says.
    """
    payload = _encoder.encode(
        {
            "type": kind,
            "account_id": place.account_id,
            "epoch": place.epoch,
            "seq": place.seq,
            "ts": iso_utc(ts_ms),
            "data": data,
        }
    )
    return Message(kind, payload, _is_state(kind) if state is None else state, changed_ms)


def moved(message: Message, place: Place) -> Message:
    """The same message, told at another place of the line; it is encoded anew.

    Raises:
        msgspec.DecodeError: Its payload is no envelope.
    """
    envelope = _envelopes.decode(message.payload)
    envelope.epoch, envelope.seq = place.epoch, place.seq
    return Message(message.type, _encoder.encode(envelope), message.state, message.seen_ms)


_SHORT: Final = 125
_MEDIUM: Final = 0xFFFF
"""The longest payloads whose length stands in one byte, and in two more (RFC 6455, 5.2)."""

_FINAL_TEXT: Final = 0x81
"""FIN and opcode 1; a server masks nothing."""


def text_frame(payload: bytes) -> bytes:
    """One unfragmented text frame, as servers send it."""
    size = len(payload)
    if size <= _SHORT:
        return bytes((_FINAL_TEXT, size)) + payload
    if size <= _MEDIUM:
        return struct.pack("!BBH", _FINAL_TEXT, _SHORT + 1, size) + payload
    return struct.pack("!BBQ", _FINAL_TEXT, _SHORT + 2, size) + payload


def _is_state(kind: str) -> bool:
    return kind == "snapshot" or kind in NUMBERED


class Ping(msgspec.Struct, frozen=True, tag_field="type", tag="ping"):
    """Asks for a `pong`."""


class Refresh(msgspec.Struct, frozen=True, tag_field="type", tag="refresh"):
    """Asks for a `snapshot`."""


class Auth(msgspec.Struct, frozen=True, tag_field="type", tag="auth"):
    """Who is there; only as the first message of a socket without a ticket in its URL."""

    ticket: str | None = None
    token: str | None = None


class BadMessage(ValueError):
    """The client said something we do not understand; the text says what we do."""


def too_large(text: str | bytes) -> bool:
    """Whether a message exceeds what a client may send; servers may let more through."""
    size = len(text) if isinstance(text, bytes) else len(text.encode(errors="surrogatepass"))
    return size > LARGEST_CLIENT_MESSAGE


_decoder: Final[msgspec.json.Decoder[Ping | Refresh | Auth]] = msgspec.json.Decoder(
    Ping | Refresh | Auth
)


def parse(text: str | bytes) -> Ping | Refresh | Auth:
    """What a client said.

    Raises:
        BadMessage: It is binary, no JSON, or of no known type.
    """
    if isinstance(text, bytes):
        raise BadMessage("messages are text, not binary")
    try:
        return _decoder.decode(text)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError) as nonsense:
        raise BadMessage('expected {"type": "ping"} or {"type": "refresh"}') from nonsense


def parse_since(text: str) -> tuple[int, int] | None:
    """(epoch, seq) of `?since=<epoch>:<seq>`; None if it is not that."""
    match = re.fullmatch(r"(\d{1,16}):(\d{1,16})", text, re.ASCII)
    return (int(match[1]), int(match[2])) if match else None
