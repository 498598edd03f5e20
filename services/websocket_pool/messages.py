"""The wire: what is sent, encoded once for all watchers, and what clients may say."""

import re
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


class Message(msgspec.Struct, frozen=True, eq=False):
    """An encoded message, shared by every socket it goes to.

    Args:
        type: Its wire name.
        text: The JSON.
        size: Bytes of it in UTF-8.
        state: Whether it tells of the account (`snapshot` and the numbered ones), so that a newer
            snapshot makes it superfluous.
        seen_ms: When the terminal saw the change it tells of, if it tells of one.
    """

    type: str
    text: str
    size: int
    state: bool
    seen_ms: int | None = None


class Place(msgspec.Struct, frozen=True):
    """Where in an account's line a message stands."""

    account_id: str
    epoch: int
    seq: int


def encode(
    kind: str, place: Place, ts_ms: int, data: object, *, changed_ms: int | None = None
) -> Message:
    """A message in the envelope of contracts §4.

    Args:
        kind: The wire name.
        place: Where it stands.
        ts_ms: Its instant, UTC epoch milliseconds.
        data: Anything msgspec encodes.
        changed_ms: When the terminal saw the change, for state.
    """
    body = msgspec.json.encode(
        {
            "type": kind,
            "account_id": place.account_id,
            "epoch": place.epoch,
            "seq": place.seq,
            "ts": iso_utc(ts_ms),
            "data": data,
        }
    )
    state = kind == "snapshot" or kind in _NUMBERED
    return Message(kind, body.decode(), len(body), state, changed_ms)


_NUMBERED: Final = frozenset(kind.value for kind in Kind)


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
