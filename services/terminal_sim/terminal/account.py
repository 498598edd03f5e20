"""An account that is logged in, as the terminal sees it: its line, its market, its rows."""

from typing import NamedTuple

from terminal_sim.broker.messages import Deals, History, Orders
from terminal_sim.broker.state import AccountState
from terminal_sim.broker.values import Deal, Order, Terms
from terminal_sim.broker.valuing import Valuation, Valuer
from terminal_sim.market.bars import Bars
from terminal_sim.market.clocks import Clock, WallClock
from terminal_sim.market.tape import Tape
from terminal_sim.module.account_rows import PositionRows
from terminal_sim.module.symbol_rows import SymbolRows
from terminal_sim.terminal.channel import LineDown
from terminal_sim.terminal.line import Line
from terminal_sim.terminal.views import Views

# What the longest history takes a broker, many times over.
_HISTORY_S = 30.0


class Asked(NamedTuple):
    """A question about history; None does not filter.

    Attributes:
        first_s: Earliest reading of the server's clock in seconds.
        last_s: Latest one.
        order: Ticket of an order.
        position: Identifier of a position.
    """

    first_s: int | None = None
    last_s: int | None = None
    order: int | None = None
    position: int | None = None


class Session:
    """One login, from its welcome to the next login.

    While the line is down its time stands still: prices and figures stay what they were.

    Args:
        line: Has been opened.
        clock: The present.
        views: Of the markets.

    Attributes:
        login: Of the account.
        since_ms: When it was logged in.
        state: The account as of the last word of its broker.
        terms: Of the account's server.
        tape: Newest ticks.
        wall: The server's wall clock.
        bars: Bars on that clock.
        positions: Makes TradePosition rows.
        symbols: Makes SymbolInfo rows.
    """

    state: AccountState
    terms: Terms
    tape: Tape
    wall: WallClock
    bars: Bars
    positions: PositionRows
    symbols: SymbolRows
    _deals: tuple[tuple[Asked, int], tuple[Deal, ...]] | None
    _orders: tuple[tuple[Asked, int], tuple[Order, ...]] | None

    def __init__(self, line: Line, clock: Clock, views: Views) -> None:
        self.line = line
        self.login = line.state.profile.login
        self.since_ms = clock.now_ms()
        self._clock = clock
        self._views = views
        self._stood_ms: int | None = None
        self._look()

    @property
    def investor(self) -> bool:
        """Logged in with the read-only password."""
        return self.line.investor

    def now_ms(self) -> int:
        """Return the present, or when the line went down."""
        return self._clock.now_ms() if self._stood_ms is None else self._stood_ms

    def value(self) -> Valuation:
        """Return what the account is worth at the newest ticks."""
        return self._valuer.value(self.state, self.now_ms())

    def deals(self, asked: Asked) -> tuple[Deal, ...]:
        """Return deals, oldest first.

        The last answer is kept for as long as nothing happens in the account, so that it can be
        had again without the broker. It is filed under the version before the question: what
        happened meanwhile may be missing in it.

        Raises:
            LineDown: The broker is not there.
            LineTimeout: No answer in time.
        """
        key = asked, self.state.version
        if self._deals is None or self._deals[0] != key:
            answer = self.line.request(lambda n: History(n, "deals", *asked), _HISTORY_S)
            if not isinstance(answer, Deals):
                raise LineDown(f"{type(answer).__name__} is no answer to a question for deals")
            self._deals = key, answer.rows
        return self._deals[1]

    def orders(self, asked: Asked) -> tuple[Order, ...]:
        """Return done orders, oldest first; see :meth:`deals`."""
        key = asked, self.state.version
        if self._orders is None or self._orders[0] != key:
            answer = self.line.request(lambda n: History(n, "orders", *asked), _HISTORY_S)
            if not isinstance(answer, Orders):
                raise LineDown(f"{type(answer).__name__} is no answer to a question for orders")
            self._orders = key, answer.rows
        return self._orders[1]

    def refresh(self) -> None:
        """Follow the line: down or up, another account state, another clock."""
        line = self.line
        if line.up:
            self._stood_ms = None
        elif self._stood_ms is None:
            self._stood_ms = self._clock.now_ms()
        if line.terms is not self.terms:
            self._look()
        elif line.state is not self.state:
            self._look_at_account()

    def _look(self) -> None:
        """Take over the server's terms, and what shows its market and its clock."""
        self.terms = self.line.terms
        view = self._views.of(self.terms)
        self.tape, self.wall, self.bars = view.tape, view.wall, view.bars
        currency = self.line.state.profile.currency
        self.symbols = SymbolRows(view.tape, view.wall, view.bars, currency)
        self._look_at_account()

    def _look_at_account(self) -> None:
        """Forget what is known of another state: it may carry the same version."""
        self._deals = self._orders = None
        self.state = self.line.state
        self._valuer = Valuer(self.tape)
        self.positions = PositionRows(self.wall)
