"""A terminal: one connection to the library, one logged-in account, one last error."""

import logging
import time
from dataclasses import dataclass
from functools import partial
from threading import RLock
from typing import NoReturn, Protocol

from terminal_sim.faults.active import ActiveFaults
from terminal_sim.faults.kinds import (
    AccountSwitched,
    AutotradingOff,
    BrokerDisconnected,
    SlowLogin,
    TerminalFault,
)
from terminal_sim.market.clocks import Clock
from terminal_sim.module.arguments import Error, is_sound, refusal
from terminal_sim.terminal.account import Session
from terminal_sim.terminal.channel import LineTimeout
from terminal_sim.terminal.commands import NotSwitched
from terminal_sim.terminal.frozen_sleep import hold_interpreter
from terminal_sim.terminal.line import Brokers, LoginRefused
from terminal_sim.terminal.mischance import Mischance
from terminal_sim.terminal.views import Views

SUCCESS: Error = (1, "Success")

_LOG = logging.getLogger("terminal_sim.session")
# How often the keeper looks after a line while nobody calls.
_ROUND_S = 0.5
# A broker that is there answers a login within this time; one that is not is waited for longer.
_SOON_S = 1.0
# How long the terminal's window waits for a login.
_WINDOW_S = 10.0


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
        trade_timeout_s: A request the broker never answers.
    """

    login_seconds: float = 1.5
    call_seconds: float = 0.0
    trade_timeout_s: float = 10.0


class Terminal:
    """What the processes behind the real module hold.

    Args:
        brokers: Where lines to servers come from.
        clock: The present.
        timing: How long calls take.
        board: Where logins are announced.
        faults: What is broken on purpose; changed only under the lock.
        seed: Of the chances of faults; with the name it decides them.
        name: Of this terminal.

    Attributes:
        lock: Held by every function of the module, by the keeper of the line and by commands.
        connected: The library is connected to the terminal.
        session: The account that is logged in.
        error: What ``last_error()`` returns.
        hidden: Symbols that are not shown in Market Watch.
        books: Symbols whose depth of market is subscribed to.
    """

    def __init__(  # noqa: PLR0913 - the parts it is made of
        self,
        brokers: Brokers,
        clock: Clock,
        timing: Timing,
        board: Board,
        *,
        faults: ActiveFaults | None = None,
        seed: int = 0,
        name: str = "mt5-terminal-1",
    ) -> None:
        self.clock = clock
        self.timing = timing
        self.lock = RLock()
        self.faults = ActiveFaults(lambda _fault_id: None) if faults is None else faults
        self.mischance = Mischance(self.faults, f"{seed}:{name}")
        self.connected = False
        self.session: Session | None = None
        self.error: Error = SUCCESS
        self.hidden: set[str] = set()
        self.books: set[str] = set()
        self._brokers = brokers
        self._board = board
        self._views = Views()
        self._saved: dict[tuple[int, str], str] = {}
        self._server = brokers.names[0]
        # Why there is no account: none was logged in, or the broker did not let it in again.
        self._missing = "RES_E_FAIL"

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
            Refusal: -10004 before ``initialize()``, -1 when no account is logged in, -6 when its
                broker has not let it in again.
        """
        self.require()
        if self.session is None:
            raise refusal(self._missing)
        return self.session

    def login(self, login: int, password: str | None, server: str | None, timeout_ms: int) -> None:
        """Log an account in; the account before it is out, whatever happens.

        Holds the interpreter for as long as a login takes. Without a password the one saved by
        an earlier login on this terminal is used.

        Raises:
            Refusal: -6 wrong credentials; -10005 no such server, its broker does not answer, or
                not in time.
        """
        name, limit = server or self._server, timeout_ms / 1000
        fault = self.faults.take(SlowLogin)
        takes = fault.login_s if fault else self.timing.login_seconds
        began = time.monotonic()
        self._leave()
        self._announce(min(takes, limit))
        try:
            session = self._open(login, name, password, limit, takes)
        except LineTimeout:
            self._settle(None, began + limit)
            _LOG.warning("login of %d at %s timed out", login, name)
            raise refusal("RES_E_INTERNAL_FAIL_TIMEOUT") from None
        except LoginRefused:
            self._settle(None, began + takes)
            _LOG.warning("login of %d at %s refused", login, name)
            raise refusal("RES_E_AUTH_FAILED") from None
        self._settle(session, began + takes)
        _LOG.info("logged in: %d at %s", login, name)

    def switch_account(self, fault: AccountSwitched) -> None:
        """Log another account in as somebody at the terminal's window does.

        The library's connection and its last error stay as they are. An account that cannot be
        logged in leaves the terminal without one, as there; one that cannot even be tried, for
        want of its password or of the server's address, changes nothing.

        Raises:
            NotSwitched: It could not be logged in.
        """
        with self.lock:
            name = fault.server or self._server
            account = f"account {fault.login} at {name}"
            if self._brokers.line(name) is None:
                raise NotSwitched(f"This terminal knows no server {name!r}.")
            if fault.password is None and (fault.login, name) not in self._saved:
                raise NotSwitched(f"The password of {account} is not known here: give password.")
            self._leave()
            self._announce(0.0)
            try:
                session = self._open(fault.login, name, fault.password, _WINDOW_S, 0.0)
            except LoginRefused:
                self._settle(None, 0.0)
                raise NotSwitched(f"The broker did not let {account} in.") from None
            except LineTimeout:
                self._settle(None, 0.0)
                raise NotSwitched(f"The broker did not answer the login of {account}.") from None
            self._settle(session, 0.0)
            _LOG.info("switched to %d at %s", fault.login, name)

    def autotrading(self) -> bool:
        """Tell whether the AutoTrading button is on."""
        return not self.faults or self.faults.first(AutotradingOff) is None

    def inject(self, fault_id: int, fault: TerminalFault) -> None:
        """Begin a fault."""
        with self.lock:
            self.faults.add(fault_id, fault)

    def mend(self, fault_id: int | None) -> None:
        """End a fault, or all of them."""
        with self.lock:
            self.faults.remove(fault_id)

    def pump(self) -> None:
        """Take over what the broker has told; every function of the module begins with it."""
        session = self.session
        if session is None:
            return
        if self.faults and self.faults.first(BrokerDisconnected):
            session.line.tend(cut=True)
        session.line.pump()
        self._follow(session)

    def keep_line(self) -> NoReturn:
        """Look after the line for ever; the target of a thread of its own."""
        while True:
            self.tend_line()
            time.sleep(_ROUND_S)

    def tend_line(self) -> None:
        """Notice a broker that has gone, and reconnect to one that is back."""
        session = self._tended()
        if session:
            session.line.dial()
            self._tended()

    def _tended(self) -> Session | None:
        with self.lock:
            session = self.session
            if session:
                cut = bool(self.faults) and self.faults.first(BrokerDisconnected) is not None
                session.line.tend(cut=cut)
                self._follow(session)
            return self.session

    def _follow(self, session: Session) -> None:
        if session.line.refused:
            self._leave()
            self._missing = "RES_E_AUTH_FAILED"
            self._board.logged_in(0)
        else:
            session.refresh()

    def _leave(self) -> None:
        """Log out."""
        if self.session:
            self.session.line.close()
        self.session, self._missing = None, "RES_E_FAIL"

    def _open(
        self, login: int, server: str, password: str | None, limit_s: float, takes_s: float
    ) -> Session:
        """Return a new session.

        Raises:
            LoginRefused: Wrong credentials.
            LineTimeout: No such server, or its broker is not there, or it takes too long.
        """
        line = self._brokers.line(server)
        if line is None or takes_s > limit_s or self.faults.first(BrokerDisconnected):
            self._announce(limit_s)
            raise LineTimeout
        self._server = server
        given = self._saved.get((login, server)) if password is None else password
        # What cannot be sent is no password of anybody.
        if given is None or not is_sound(given):
            raise LoginRefused
        soon_s = min(limit_s, max(takes_s, _SOON_S))
        try:
            line.open(login, given, soon_s)
        except LineTimeout:
            line = self._brokers.line(server)
            if line is None or soon_s >= limit_s:
                raise
            self._announce(limit_s - soon_s)
            line.open(login, given, limit_s - soon_s)
        self._saved[login, server] = given
        return Session(line, self.clock, self._views)

    def _announce(self, seconds: float) -> None:
        """Post for how long the interpreter may be held from now on."""
        self._board.login_until(self.clock.now_ms() + round(seconds * 1000))

    def _settle(self, session: Session | None, until: float) -> None:
        """Stay frozen until a login's time is over, then show what came of it."""
        seconds = max(0.0, until - time.monotonic())
        hold_interpreter(seconds, partial(setattr, self, "session", session))
        self._board.logged_in(session.login if session else 0)
        self._board.login_until(0)
