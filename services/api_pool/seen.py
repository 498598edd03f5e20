"""A look at an account in the form in which it is answered: encoded once, joined ever after."""

from functools import cached_property
from typing import Final, Self

import msgspec

from mt5kit.domain.accounts import AccountIdentity
from mt5kit.domain.snapshots import Snapshot, TerminalStatus


class _Parts(msgspec.Struct, frozen=True):
    account: msgspec.Raw
    positions: msgspec.Raw
    orders: msgspec.Raw
    terminal: TerminalStatus
    seen_ms: int


class _Named(msgspec.Struct, frozen=True):
    symbol: str


_PARTS: Final = msgspec.json.Decoder(_Parts)
_IDENTITY: Final = msgspec.json.Decoder(AccountIdentity)
_NAMES: Final = msgspec.json.Decoder(tuple[_Named, ...])
_ROWS: Final = msgspec.json.Decoder(tuple[msgspec.Raw, ...])


class Seen:
    """One look, its parts still encoded; reading a part decodes nothing else.

    Make it with `of_payload` or `of`.

    Attributes:
        payload: The JSON of the whole `Snapshot`, as the state store keeps it.
        identity: The login and server that the terminal reported.
        seen_ms: The instant of the look, UTC epoch milliseconds.
        connected: Whether the terminal's link to the broker was up.
        account: The JSON of the 28 fields of `AccountInfo`.
        positions: The JSON list of the open positions.
        orders: The JSON list of the pending orders.
    """

    def __init__(self, payload: bytes, parts: _Parts, identity: AccountIdentity) -> None:
        self.payload = payload
        self.identity = identity
        self.seen_ms = parts.seen_ms
        self.connected = parts.terminal.connected
        self.account = parts.account
        self.positions = parts.positions
        self.orders = parts.orders

    @classmethod
    def of_payload(cls, payload: bytes) -> Self:
        """The look in the JSON of a `Snapshot`.

        Raises:
            msgspec.DecodeError: The payload is no snapshot.
        """
        parts = _PARTS.decode(payload)
        return cls(payload, parts, _IDENTITY.decode(parts.account))

    @classmethod
    def of(cls, snapshot: Snapshot) -> Self:
        """The look that a terminal just gave; its UTC times are filled in already."""
        return cls.of_payload(msgspec.json.encode(snapshot))

    def snapshot(self) -> Snapshot:
        """The whole look, decoded."""
        return msgspec.json.decode(self.payload, type=Snapshot)

    def positions_of(self, symbol: str | None) -> bytes | msgspec.Raw:
        """The JSON list of the positions of one symbol, or of all."""
        return self.positions if symbol is None else _rows_of(self._position_rows, symbol)

    def orders_of(self, symbol: str | None) -> bytes | msgspec.Raw:
        """The JSON list of the orders of one symbol, or of all."""
        return self.orders if symbol is None else _rows_of(self._order_rows, symbol)

    @cached_property
    def _position_rows(self) -> tuple[tuple[str, msgspec.Raw], ...]:
        return _rows(self.positions)

    @cached_property
    def _order_rows(self) -> tuple[tuple[str, msgspec.Raw], ...]:
        return _rows(self.orders)


def _rows(encoded: msgspec.Raw) -> tuple[tuple[str, msgspec.Raw], ...]:
    names = _NAMES.decode(encoded)
    return tuple(
        (named.symbol, row) for named, row in zip(names, _ROWS.decode(encoded), strict=True)
    )


def _rows_of(rows: tuple[tuple[str, msgspec.Raw], ...], symbol: str) -> bytes:
    return b"[" + b",".join([row for name, row in rows if name == symbol]) + b"]"
