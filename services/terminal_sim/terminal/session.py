"""A terminal: one connection to the library, one logged-in account, one last error."""

import logging
from dataclasses import dataclass, field
from functools import partial
from hmac import compare_digest
from typing import Protocol

from terminal_sim.broker.book import Book
from terminal_sim.market.bars import Bars
from terminal_sim.market.clocks import Clock, WallClock
from terminal_sim.market.prices import Market
from terminal_sim.market.tape import Tape
from terminal_sim.module.account_rows import PositionRows
from terminal_sim.module.arguments import Error, refusal
from terminal_sim.module.symbol_rows import SymbolRows
from terminal_sim.scenario.model import Account, Scenario
from terminal_sim.terminal.frozen_sleep import hold_interpreter

SUCCESS: Error = (1, "Success")

_LOG = logging.getLogger("terminal_sim.session")


class Board(Protocol):
    """Where a terminal posts what others must know while it is frozen."""

    def login_until(self, until_ms: int) -> None:
        """Post until when (UTC epoch milliseconds) a login may hold the interpreter; 0: none."""
        ...

    def logged_in(self, login: int) -> None:
        """Post which account is logged in; 0: none."""
        ...


@dataclass(frozen=True, slots=True)
class Timing:
    """How long calls hold the interpreter.

    Attributes:
        login_seconds: A login.
        call_seconds: Every other call that talks to the terminal.
    """

    login_seconds: float = 1.5
    call_seconds: float = 0.0


@dataclass(frozen=True)
class Session:
    """An account that is logged in.

    Attributes:
        book: The account.
        investor: Logged in with the read-only password.
        bars: Bars on the server's clock.
        positions: Makes its TradePosition rows.
        symbols: Makes its SymbolInfo rows.
    """

    book: Book
    investor: bool
    bars: Bars
    positions: PositionRows = field(init=False)
    symbols: SymbolRows = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "positions", PositionRows(self.book))
        object.__setattr__(self, "symbols", SymbolRows(self.book, self.bars))


class Terminal:
    """What the processes behind the real module hold.

    Args:
        scenario: Servers and accounts.
        clock: The present.
        timing: How long calls take.
        board: Where logins are announced.
    """

    def __init__(self, scenario: Scenario, clock: Clock, timing: Timing, board: Board) -> None:
        self.scenario = scenario
        self.clock = clock
        self.timing = timing
        self.market = Market(scenario.seed)
        self.tape = Tape(self.market)
        self.connected = False
        self.session: Session | None = None
        self.error: Error = SUCCESS
        self.hidden: set[str] = set()
        self._board = board
        self._books: dict[tuple[int, str], Book] = {}
        self._bars: dict[str, Bars] = {}
        self._saved: dict[tuple[int, str], str] = {}
        self._server = scenario.servers[0].name

    def require(self) -> None:
        """Refuse a call made before ``initialize()``.

        Raises:
            Refusal: -10004.
        """
        if not self.connected:
            raise refusal("RES_E_INTERNAL_FAIL_CONNECT")

    def account(self) -> Session:
        """Return the session.

        Raises:
            Refusal: -10004 before ``initialize()``, -1 when no account is logged in.
        """
        self.require()
        if self.session is None:
            raise refusal("RES_E_FAIL")
        return self.session

    def login(self, login: int, password: str | None, server: str | None, timeout_ms: int) -> None:
        """Log an account in; the account before it is out, whatever happens.

        Holds the interpreter for as long as a login takes. Without a password the one saved by
        an earlier login on this terminal is used.

        Raises:
            Refusal: -6 wrong credentials, -10005 no such server or not in time.
        """
        name = server or self._server
        known = self.scenario.server(name) is not None
        limit = timeout_ms / 1000
        takes = self.timing.login_seconds if known else limit
        if known and takes <= limit:
            self._server = name
            session = self._open(login, name, password)
            fault = None if session else refusal("RES_E_AUTH_FAILED")
        else:
            session, fault = None, refusal("RES_E_INTERNAL_FAIL_TIMEOUT")
        self._switch(session, min(takes, limit))
        if fault:
            _LOG.warning("login of %d at %s refused: %s", login, name, fault)
            raise fault
        _LOG.info("logged in: %d at %s", login, name)

    def _open(self, login: int, server: str, password: str | None) -> Session | None:
        """Return a new session, or None when the credentials are wrong."""
        account = self.scenario.account(login, server)
        given = self._saved.get((login, server)) if password is None else password
        if account is None or given is None:
            return None
        investor = _same(given, account.investor_password)
        if not investor and not _same(given, account.password):
            return None
        self._saved[login, server] = given
        book = self._book(account)
        return Session(book, investor, self._bars[server])

    def _switch(self, session: Session | None, seconds: float) -> None:
        """Change the session as the real terminal does: every client is frozen, then it is done."""
        self._board.login_until(self.clock.now_ms() + round(seconds * 1000))
        hold_interpreter(seconds, partial(setattr, self, "session", session))
        self._board.logged_in(session.book.account.login if session else 0)
        self._board.login_until(0)

    def _book(self, account: Account) -> Book:
        where = account.login, account.server
        book = self._books.get(where)
        if book is None:
            server = self.scenario.server(account.server)
            if server is None:
                raise refusal("RES_E_FAIL")
            ordinal = self.scenario.accounts.index(account)
            book = self._books[where] = Book(self.tape, server, account, ordinal)
            if server.name not in self._bars:
                self._bars[server.name] = Bars(self.market, WallClock(server.clock))
        return book


def _same(given: str, right: str | None) -> bool:
    return right is not None and compare_digest(_bytes(given), _bytes(right))


def _bytes(text: str) -> bytes:
    return text.encode(errors="surrogatepass")
