"""AccountInfo and TradePosition rows of an account's state."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from terminal_sim.broker.state import AccountState
from terminal_sim.broker.valuing import Valuation
from terminal_sim.catalogue import catalogue
from terminal_sim.market.clocks import WallClock
from terminal_sim.module.structs import StructSequence, maker, struct

if TYPE_CHECKING:
    from terminal_sim.terminal.account import Session

# Margin level, in percent, at which a broker warns and closes positions.
_CALL_LEVEL, _STOP_LEVEL = 50.0, 30.0
_MAX_PENDING = 200


def account_info(session: "Session") -> StructSequence:
    """Return AccountInfo.

    An investor (read-only password) may not trade, and nobody may while the broker is not there.
    """
    profile, valued = session.state.profile, session.value()
    constants = catalogue().constants
    return filled(
        "AccountInfo",
        login=profile.login,
        trade_mode=constants["ACCOUNT_TRADE_MODE_DEMO"],
        leverage=profile.leverage,
        limit_orders=_MAX_PENDING,
        margin_so_mode=constants["ACCOUNT_STOPOUT_MODE_PERCENT"],
        trade_allowed=session.line.up and not session.investor,
        trade_expert=True,
        margin_mode=constants[f"ACCOUNT_MARGIN_MODE_RETAIL_{profile.margin_mode.upper()}"],
        currency_digits=session.state.digits,
        fifo_close=False,
        balance=valued.balance,
        credit=valued.credit,
        profit=valued.floating,
        equity=valued.equity,
        margin=valued.margin,
        margin_free=valued.margin_free,
        margin_level=valued.margin_level,
        margin_so_call=_CALL_LEVEL,
        margin_so_so=_STOP_LEVEL,
        margin_initial=0.0,
        margin_maintenance=0.0,
        assets=0.0,
        liabilities=0.0,
        commission_blocked=0.0,
        name=profile.name,
        server=session.terms.server,
        currency=profile.currency,
        company=session.terms.company,
    )


class PositionRows:
    """Turns a valued account into TradePosition rows; what does not move is prepared once.

    Args:
        wall: The server's wall clock.
    """

    def __init__(self, wall: WallClock) -> None:
        self._wall = wall
        self._make = maker("TradePosition")
        self._still: tuple[int, tuple[list[Any], ...], tuple[list[Any], ...]] | None = None
        self._rows: tuple[Valuation, tuple[StructSequence, ...]] | None = None

    def rows(self, state: AccountState, valued: Valuation) -> tuple[StructSequence, ...]:
        """Return the open positions, in the order they were opened.

        One maker serves one state object: its versions tell what has moved.
        """
        last = self._rows
        if last and last[0] is valued:
            return last[1]
        before, swap, after = self._columns(state, valued)
        moving = valued.price.tolist(), swap, valued.profit.tolist()
        rows = tuple(map(self._make, zip(*before, *moving, *after, strict=True)))
        self._rows = valued, rows
        return rows

    def _columns(
        self, state: AccountState, valued: Valuation
    ) -> tuple[tuple[list[Any], ...], list[float], tuple[list[Any], ...]]:
        """Return the columns up to ``price_current``, the swaps, and those from ``symbol`` on."""
        last = self._still
        if last is None or last[0] != valued.version:
            held = [state.positions[ticket] for ticket in valued.tickets]
            opened = self._wall.walls_ms(np.array([p.opened_ms for p in held], np.int64))
            updated = self._wall.walls_ms(np.array([p.updated_ms for p in held], np.int64))
            before = (
                [p.ticket for p in held],
                (opened // 1000).tolist(),
                opened.tolist(),
                (updated // 1000).tolist(),
                updated.tolist(),
                [0 if p.sign > 0 else 1 for p in held],
                [p.magic for p in held],
                [p.identifier for p in held],
                [p.reason for p in held],
                [p.volume for p in held],
                [p.price_open for p in held],
                [p.sl for p in held],
                [p.tp for p in held],
            )
            names, comments = [p.symbol for p in held], [p.comment for p in held]
            after = [p.swap for p in held], names, comments, [""] * len(held)
            last = self._still = valued.version, before, after
        return last[1], last[2][0], last[2][1:]


def filled(name: str, /, **values: Any) -> StructSequence:  # noqa: ANN401 - a field may hold anything
    """Return a result struct from its fields by name.

    Raises:
        KeyError: A field is missing.
    """
    cls = struct(name)
    return cls(_ordered(cls.__match_args__, values))


def _ordered(names: tuple[str, ...], values: dict[str, Any]) -> Iterator[Any]:
    return (values[name] for name in names)
