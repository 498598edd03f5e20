"""Looks made up for the tests of what keeps and answers them."""

from typing import Any

from mt5kit.domain.accounts import AccountInfo
from mt5kit.domain.snapshots import Snapshot, TerminalStatus
from mt5kit.domain.trades import Order, Position


def position(ticket: int, symbol: str) -> Position:
    fields: list[Any] = [*([0] * 8), *([1.5] * 7), symbol, "", ""]
    return Position(ticket, *fields)


def order(ticket: int, symbol: str) -> Order:
    fields: list[Any] = [*([0] * 13), *([2.5] * 7), symbol, "", ""]
    return Order(ticket, *fields)


def snapshot(
    login: int = 7, seen_ms: int = 1000, symbols: tuple[str, ...] = ("EURUSD", "XAUUSD")
) -> Snapshot:
    flags, texts = (login, 0, 100, 0, 0, True, True, 2, 2, False), ('N "a"', "Server-1", "USD", "é")
    fields: list[Any] = [*flags, *([0.5] * 14), *texts]
    return Snapshot(
        AccountInfo(*fields),
        tuple(position(number, symbol) for number, symbol in enumerate(symbols)),
        tuple(order(number, symbol) for number, symbol in enumerate(symbols)),
        TerminalStatus(connected=True, trade_allowed=False),
        seen_ms,
    )
