"""initialize, login, shutdown, version, last_error, account_info, terminal_info."""

from terminal_sim.module import account_rows
from terminal_sim.module.arguments import (
    MAX_COUNT,
    Error,
    Refusal,
    check_arity,
    check_keywords,
    integer,
    invalid,
    text,
)
from terminal_sim.module.entry import entry
from terminal_sim.module.structs import StructSequence, struct
from terminal_sim.terminal.session import Terminal

BUILD = 5430
"""Build number the simulated terminal reports."""
_VERSION = (500, BUILD, "14 Nov 2025")
MAX_BARS = 100_000
"""Most bars in one answer: the "Max bars in chart" of a fresh terminal."""
_TIMEOUT_MS = 60_000
_MAX_LOGIN = 2**63 - 1
_PATH = "C:\\Program Files\\MetaTrader 5"
_PING_US = 23_517
_UTF8 = 65_001


class ConnectionFunctions:
    """Functions that connect the library to the terminal and the terminal to an account.

    Args:
        terminal: The terminal they act on.
    """

    def __init__(self, terminal: Terminal) -> None:
        self.terminal = terminal

    @entry(failure=False)
    def initialize(self, *args: object, **kwargs: object) -> bool:
        """Connect to the terminal, and log in when a login is given."""
        check_keywords(
            "initialize", ("path", "login", "password", "server", "timeout", "portable"), kwargs
        )
        if len(args) > 1:
            raise Refusal((-2, "Unnamed arguments not allowed"))
        for path in (*args, *((kwargs.pop("path"),) if "path" in kwargs else ())):
            text("path", path)
        kwargs.pop("portable", None)
        self.terminal.connected = True
        if "login" in kwargs:
            try:
                self._login(**kwargs)
            except Refusal:
                self.terminal.connected = False
                raise
        return True

    @entry(failure=False)
    def login(self, *args: object, **kwargs: object) -> bool:
        """Log an account in, in place of the present one."""
        check_keywords("login", ("login", "password", "server", "timeout"), kwargs)
        if len(args) > 1:
            raise Refusal((-2, "Unnamed arguments not allowed"))
        if args:
            kwargs["login"] = args[0]
        if "login" not in kwargs:
            raise invalid("login")
        self.terminal.require()
        self._login(**kwargs)
        return True

    @entry(failure=False, arity=0)
    def shutdown(self) -> bool:
        """Close the library's connection to the terminal, for every client of the process."""
        self.terminal.connected = False
        self.terminal.books.clear()
        return True

    @entry(arity=0)
    def version(self) -> tuple[int, int, str]:
        """Return the terminal's version, build and release date."""
        self.terminal.require()
        return _VERSION

    def last_error(self, *args: object, **kwargs: object) -> Error:
        """Return code and text of the last call, whoever made it."""
        check_arity("last_error", 0, args, kwargs)
        with self.terminal.lock:
            return self.terminal.error

    @entry(arity=0)
    def account_info(self) -> StructSequence:
        """Return the account that is logged in."""
        return account_rows.account_info(self.terminal.account())

    @entry(arity=0)
    def terminal_info(self) -> StructSequence:
        """Return the terminal's state and settings."""
        self.terminal.require()
        session = self.terminal.session
        online = session is not None and session.line.up
        values = {
            "connected": online,
            "trade_allowed": self.terminal.autotrading(),
            "build": BUILD,
            "maxbars": MAX_BARS,
            "codepage": _UTF8,
            "ping_last": _PING_US if online else 0,
            "company": session.terms.company if session else "MetaQuotes Ltd.",
            "name": "MetaTrader 5",
            "language": "English",
            "path": _PATH,
            "data_path": _PATH,
            "commondata_path": "C:\\users\\Public\\MetaQuotes\\Terminal\\Common",
            "community_balance": 0.0,
            "retransmission": 0.0,
            "mqid": False,
        }
        cls = struct("TerminalInfo")
        return cls(values.get(name, False) for name in cls.__match_args__)

    def _login(
        self,
        login: object,
        password: object = None,
        server: object = None,
        timeout: object = _TIMEOUT_MS,
    ) -> None:
        self.terminal.login(
            integer("login", login, high=_MAX_LOGIN),
            None if password is None else text("password", password),
            None if server is None else text("server", server),
            integer("timeout", timeout, high=MAX_COUNT),
        )
