"""Where a broker's faults are felt: in logins, in trades, in answers, in the market's hours."""

import time
from collections import deque
from collections.abc import Callable

from terminal_sim.broker.codes import TRADE_ACTION_DEAL
from terminal_sim.broker.retcodes import (
    CONNECTION,
    DONE,
    MARKET_CLOSED,
    REQUOTE,
    TEXTS,
    TIMEOUT,
    refused,
)
from terminal_sim.broker.state import AccountState
from terminal_sim.broker.values import TradeRequest, TradeResult
from terminal_sim.faults.active import ActiveFaults
from terminal_sim.faults.kinds import (
    AnswerLost,
    LoginRateLimit,
    LoginRejected,
    MarketClosed,
    Requote,
    TradeRefused,
)
from terminal_sim.market.instruments import INSTRUMENTS
from terminal_sim.market.tape import Tape

_NONE: frozenset[str] = frozenset()


def symbol_of(state: AccountState, request: TradeRequest) -> str:
    """Return the symbol of a request, of its position, or of its order; empty for none."""
    held, placed = state.positions.get(request.position), state.orders.get(request.order)
    return request.symbol or (held.symbol if held else placed.symbol if placed else "")


class Trouble:
    """What a broker's faults do.

    Args:
        faults: Those that are on.
        clock: Monotonic seconds.
    """

    def __init__(self, faults: ActiveFaults, clock: Callable[[], float] = time.monotonic) -> None:
        self.faults = faults
        self._clock = clock
        self._logins: dict[str, deque[float]] = {}

    def rejects(self, login: int) -> bool:
        """Tell whether a login is refused whatever its password."""
        return self.faults.take(LoginRejected, lambda f: f.login in {None, login}) is not None

    def limits(self, terminal: str) -> bool:
        """Count a login of a terminal and tell whether it is one too many."""
        limit = self.faults.first(LoginRateLimit)
        if limit is None:
            self._logins.clear()
            return False
        now, recent = self._clock(), self._logins.setdefault(terminal, deque())
        while recent and now - recent[0] >= limit.window_s:
            recent.popleft()
        if len(recent) >= limit.count:
            self.faults.take(LoginRateLimit)
            return True
        recent.append(now)
        return False

    def closed(self) -> frozenset[str]:
        """Return the symbols whose market is closed."""
        if not self.faults or self.faults.first(MarketClosed) is None:
            return _NONE
        return frozenset(symbol for symbol in INSTRUMENTS if self._is_closed(symbol))

    def _is_closed(self, symbol: str) -> bool:
        return self.faults.first(MarketClosed, lambda f: f.symbol in {None, symbol}) is not None

    def instead(
        self, state: AccountState, request: TradeRequest, tape: Tape, now_ms: int
    ) -> TradeResult | None:
        """Return what a request that would be carried out is answered instead; None: nothing."""
        if not self.faults:
            return None
        login, symbol = state.profile.login, symbol_of(state, request)
        refusal = self.faults.take(
            TradeRefused, lambda f: f.login in {None, login} and f.symbol in {None, symbol}
        )
        if refusal:
            return TradeResult(refusal.retcode, TEXTS.get(refusal.retcode, ""))
        if self.faults.take(MarketClosed, lambda f: f.symbol in {None, symbol}):
            return refused(MARKET_CLOSED)
        if request.action != TRADE_ACTION_DEAL:
            return None
        if self.faults.take(Requote, lambda f: f.login in {None, login}):
            return _requoted(request, symbol, tape, now_ms)
        return None

    def told(self, login: int, result: TradeResult) -> TradeResult | None:
        """Return the answer a terminal gets; None: it gets none at all."""
        if result.retcode != DONE:
            return result
        lost = self.faults.take(AnswerLost, lambda f: f.login in {None, login})
        if lost is None:
            return result
        if lost.answer == "none":
            return None
        return refused(TIMEOUT if lost.answer == "timeout" else CONNECTION)


def _requoted(request: TradeRequest, symbol: str, tape: Tape, now_ms: int) -> TradeResult:
    quote, answer = tape.at(symbol, now_ms), refused(REQUOTE)
    return TradeResult(
        retcode=answer.retcode,
        comment=answer.comment,
        volume=request.volume,
        bid=quote.bid,
        ask=quote.ask,
    )
