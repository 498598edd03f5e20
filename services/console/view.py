"""What the page shows of what is known: text, tones and rows. Pure, but for learnt digits."""

import datetime as dt
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Final

import msgspec

from console.account_model import DEGRADED
from console.api_client import Problem
from console.figures import NOTHING, PriceDigits, age, money, percent, volume
from console.stream_client import Phase
from console.watch import Known
from mt5kit.domain.accounts import AccountInfo
from mt5kit.domain.trades import Order, Position

# Numbers as in MetaTrader's ORDER_TYPE_* constants.
_ORDER_KINDS: Final = (
    "Buy", "Sell", "Buy limit", "Sell limit", "Buy stop", "Sell stop", "Buy stop limit",
    "Sell stop limit", "Close by",
)  # fmt: skip
_STATES: Final = {
    "new": "New",
    "connecting": "Connecting",
    "connected": "Connected",
    "broker_disconnected": "Broker disconnected",
    "login_failed": "Login failed",
    "disconnected": "Disconnected",
    "terminal_unavailable": "Terminal unavailable",
}
_PHASES: Final = {
    Phase.CONNECTING: "Stream connecting",
    Phase.LIVE: "Live",
    Phase.DEGRADED: "Degraded",
    Phase.RECONNECTING: "Reconnecting",
}


class Tone(StrEnum):
    """How a value is to be taken; the words beside it say the same."""

    PLAIN = "plain"
    UP = "up"
    DOWN = "down"
    GOOD = "good"
    WAIT = "wait"
    BAD = "bad"


_STATE_TONES: Final = {
    "connected": Tone.GOOD,
    "connecting": Tone.WAIT,
    "broker_disconnected": Tone.WAIT,
    "login_failed": Tone.BAD,
    "terminal_unavailable": Tone.BAD,
}


class Cell(msgspec.Struct, frozen=True):
    """A text and its tone."""

    text: str
    tone: Tone = Tone.PLAIN


_BLANK: Final = {
    **dict.fromkeys(("balance", "equity", "margin-free", "margin-level", "profit"), Cell(NOTHING)),
    **dict.fromkeys(("currency", "holder", "identity", "leverage"), Cell("")),
}

Row = Mapping[str, Cell]
"""Cells by column."""


class Table(msgspec.Struct, frozen=True):
    """Rows by ticket in the order shown, and the totals below them."""

    rows: Mapping[str, Row] = {}
    totals: Row = {}


class Figures(msgspec.Struct, frozen=True):
    """One look at an account, from the stream or from REST, and its instant (ISO-8601 UTC)."""

    account: AccountInfo
    positions: Sequence[Position]
    orders: Sequence[Order]
    as_of: str


class PageView(msgspec.Struct, frozen=True):
    """All that changes on the page.

    Args:
        cells: Texts by their test id.
        positions: The positions table.
        orders: The pending orders' table.
        money_digits: Decimals of the account's currency.
        equity: (epoch milliseconds, equity) of the figures; None before the first.
        problem: What a person should know, if anything.
    """

    cells: Mapping[str, Cell]
    positions: Table
    orders: Table
    money_digits: int = 2
    equity: tuple[int, float] | None = None
    problem: Problem | None = None


def view_of(known: Known, now: dt.datetime, digits: PriceDigits) -> PageView:
    """The page for what is known now.

    Args:
        known: Of one account.
        now: With a zone.
        digits: Learns every price it is shown.
    """
    figures = figures_of(known)
    cells = {**_badges(known), **_origin(known, figures, now)}
    problem = _problem(known)
    if figures is None:
        return PageView({**cells, **_BLANK}, Table(), Table(), problem=problem)
    account = figures.account
    _learn(figures, digits)
    return PageView(
        {**cells, **_cards(account)},
        _positions_table(figures.positions, account.currency_digits, digits),
        _orders_table(figures.orders, digits),
        account.currency_digits,
        (_epoch_ms(figures.as_of), account.equity),
        problem,
    )


def figures_of(known: Known) -> Figures | None:
    """The newer of what the stream and what REST has told; the stream's while it is live."""
    model, reading = known.model, known.reading
    streamed = None
    if model.account is not None:
        streamed = Figures(model.account, model.positions, model.orders, model.ts)
    if reading is None or (streamed and known.link.phase is Phase.LIVE and model.based):
        return streamed
    # Both instants are of one format, so that text order is time order.
    if streamed and streamed.as_of >= reading.meta.as_of:
        return streamed
    return Figures(reading.account, reading.positions, reading.orders, reading.meta.as_of)


def state_of(known: Known) -> str | None:
    """The account's state: the stream's word while it is live, else the record's."""
    status = known.model.status
    if status is None or status.state == DEGRADED:
        return known.detail.state if known.detail else None
    if known.link.phase is Phase.LIVE or known.detail is None:
        return status.state
    return known.detail.state


def state_text(state: str) -> str:
    """A state in words; one we have not heard of as it is."""
    return _STATES.get(state, state)


def signed_cell(amount: float, digits: int) -> Cell:
    """An amount with its sign, toned by it."""
    text = money(amount, digits, signed=True)
    if not text.startswith(("+", "\N{MINUS SIGN}")):
        return Cell(text)
    return Cell(text, Tone.UP if amount > 0 else Tone.DOWN)


def _badges(known: Known) -> dict[str, Cell]:
    state, phase = state_of(known), known.link.phase
    stream = _PHASES[phase]
    if phase is Phase.RECONNECTING and known.heard_s is not None:
        stream = f"{stream}, last heard {age(known.heard_s)} ago"
    return {
        "state": Cell(
            state_text(state) if state else "Loading", _STATE_TONES.get(state or "", Tone.PLAIN)
        ),
        "stream": Cell(stream, Tone.GOOD if phase is Phase.LIVE else Tone.WAIT),
    }


def _cards(account: AccountInfo) -> dict[str, Cell]:
    digits = account.currency_digits
    return {
        "balance": Cell(money(account.balance, digits)),
        "equity": Cell(money(account.equity, digits)),
        "margin-free": Cell(money(account.margin_free, digits)),
        "margin-level": Cell(percent(account.margin_level) if account.margin else NOTHING),
        "profit": signed_cell(account.profit, digits),
        "currency": Cell(account.currency),
        "holder": Cell(account.name),
        "identity": Cell(f"{account.login} at {account.server}"),
        "leverage": Cell(f"1:{account.leverage}"),
    }


def _origin(known: Known, figures: Figures | None, now: dt.datetime) -> dict[str, Cell]:
    model, reading = known.model, known.reading
    instance = known.link.instance_id or (reading.meta.instance_id if reading else None)
    changed = f"{age((now - _instant(figures.as_of)).total_seconds())} ago" if figures else NOTHING
    return {
        "terminal-id": Cell(reading.meta.terminal_id if reading else NOTHING),
        "instance-id": Cell(instance or NOTHING),
        "line": Cell(f"{model.epoch}:{model.seq}" if model.epoch else NOTHING),
        "changed": Cell(changed),
    }


def _problem(known: Known) -> Problem | None:
    status, detail = known.model.status, known.detail
    if known.problem is not None:
        return known.problem
    if known.link.phase is Phase.LIVE and status is not None:
        return Problem(status.reason, status.state.upper()) if status.reason else None
    if detail is not None and detail.last_error is not None and detail.state != "connected":
        return detail.last_error
    return known.link.problem


def _learn(figures: Figures, digits: PriceDigits) -> None:
    for position in figures.positions:
        digits.learn(
            position.symbol, position.price_open, position.price_current, position.sl, position.tp
        )
    for order in figures.orders:
        digits.learn(order.symbol, order.price_open, order.price_current, order.sl, order.tp)


def _positions_table(positions: Sequence[Position], money_digits: int, of: PriceDigits) -> Table:
    rows = {
        str(position.ticket): {
            "symbol": Cell(position.symbol),
            "ticket": Cell(str(position.ticket)),
            "side": Cell(_order_kind(position.type)),
            "volume": Cell(volume(position.volume)),
            "open": Cell(of.show(position.symbol, position.price_open)),
            "current": Cell(of.show(position.symbol, position.price_current)),
            "sl": Cell(of.show(position.symbol, position.sl)),
            "tp": Cell(of.show(position.symbol, position.tp)),
            "swap": Cell(money(position.swap, money_digits, signed=True)),
            "profit": signed_cell(position.profit, money_digits),
        }
        for position in positions
    }
    if not rows:
        return Table()
    swap = sum(position.swap for position in positions)
    totals = {
        "symbol": Cell("1 position" if len(rows) == 1 else f"{len(rows)} positions"),
        "swap": Cell(money(swap, money_digits, signed=True)),
        "profit": signed_cell(sum(position.profit for position in positions), money_digits),
    }
    return Table(rows, totals)


def _orders_table(orders: Sequence[Order], digits: PriceDigits) -> Table:
    return Table(
        {
            str(order.ticket): {
                "symbol": Cell(order.symbol),
                "ticket": Cell(str(order.ticket)),
                "kind": Cell(_order_kind(order.type)),
                "volume": Cell(volume(order.volume_current)),
                "price": Cell(digits.show(order.symbol, order.price_open)),
                "current": Cell(digits.show(order.symbol, order.price_current)),
                "sl": Cell(digits.show(order.symbol, order.sl)),
                "tp": Cell(digits.show(order.symbol, order.tp)),
            }
            for order in orders
        }
    )


def _order_kind(number: int) -> str:
    return _ORDER_KINDS[number] if 0 <= number < len(_ORDER_KINDS) else f"Type {number}"


def _instant(iso: str) -> dt.datetime:
    return dt.datetime.fromisoformat(iso)


def _epoch_ms(iso: str) -> int:
    return round(_instant(iso).timestamp() * 1000)
