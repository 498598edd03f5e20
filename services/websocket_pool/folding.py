"""The state that an account's messages lead to: what a client does with them. Pure."""

from typing import TypeVar

import msgspec

from mt5kit.domain.accounts import AccountInfo
from mt5kit.domain.trades import Order, Position
from websocket_pool.diff import Status, View
from websocket_pool.messages import Kind, Message

T = TypeVar("T")


class _Envelope(msgspec.Struct, frozen=True):
    data: msgspec.Raw


class _Positions(msgspec.Struct, frozen=True):
    positions: tuple[Position, ...]


class _Orders(msgspec.Struct, frozen=True):
    orders: tuple[Order, ...]


class _Changes(msgspec.Struct, frozen=True):
    account: dict[str, object]


def folded(view: View, message: Message, seen_ms: int) -> View:
    """The view after a numbered message.

    Args:
        view: What stood before it.
        message: The one that follows.
        seen_ms: When the look that it tells was taken, UTC epoch milliseconds.

    Raises:
        msgspec.ValidationError: The message is none of ours.
        ValueError: Changes of an account that is not known yet.
    """
    data = msgspec.json.decode(message.payload, type=_Envelope).data
    part = _part(view, Kind(message.type), data)
    return msgspec.structs.replace(view, **part, seen_ms=seen_ms)


def _part(view: View, kind: Kind, data: msgspec.Raw) -> dict[str, object]:
    match kind:
        case Kind.STATUS:
            return {"status": _decoded(data, Status)}
        case Kind.POSITIONS:
            return {"positions": _decoded(data, _Positions).positions}
        case Kind.ORDERS:
            return {"orders": _decoded(data, _Orders).orders}
        case Kind.ACCOUNT:
            if view.account is None:
                raise ValueError("an account has no changes before its first look")
            changed = _decoded(data, _Changes).account
            before = msgspec.structs.asdict(view.account)
            return {"account": msgspec.convert({**before, **changed}, AccountInfo)}


def _decoded(data: msgspec.Raw, kind: type[T]) -> T:
    return msgspec.json.decode(data, type=kind)
