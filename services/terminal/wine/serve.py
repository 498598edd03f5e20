"""The RPyC server of one terminal, run by the Python in Wine.

One plain file for Python 3.9 in 32 bits, with the pinned rpyc and MetaTrader5 beside it. It is
RPyC's classic service; what it adds is in the module that all clients of the process share:

- `initialize` reaches the terminal of this server's directory and no other, whoever calls it.
  Without a path the module takes any terminal that runs, and several run in one container.
- A login is asked for only while that terminal is provably the one at the other end.
- Until when a call may hold the interpreter, and who is in, is written to a file (the board),
  which can be read while nothing here answers.
"""

from __future__ import annotations

import argparse
import functools
import json
import logging
import ntpath
import os
import socket
import sys
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Callable

import MetaTrader5 as mt5  # noqa: N813 - the name every user of the module gives it
from rpyc.core.service import SlaveService
from rpyc.utils.server import ThreadedServer

if TYPE_CHECKING:
    from collections.abc import Iterator

# What the module waits by default, and the longest that somebody may say it will take.
USUAL_TIMEOUT_MS, LONGEST_TIMEOUT_MS = 60_000, 180_000
# The module gives up at its timeout, and then has still to come back.
MARGIN_MS = 5_000


class WrongTerminal(RuntimeError):
    """The module is, or would be, connected to another terminal than this server's."""


class Board:
    """What the supervisor can read of this process at any time.

    Args:
        path: Of the file: `{"login_until_ms", "logged_in", "version"}`, replaced whole.
    """

    def __init__(self, path: str) -> None:
        """Begin with nobody logged in."""
        self._path = path
        self._lock = threading.Lock()
        self._waits: list[int] = []
        self._known: dict[str, Any] = {"logged_in": 0, "version": None}
        self._write()

    @contextmanager
    def holding(self, timeout_ms: int) -> Iterator[None]:
        """Say that a call may hold the interpreter for so long, until it is over."""
        until_ms = time.time_ns() // 1_000_000 + timeout_ms + MARGIN_MS
        with self._lock:
            self._waits.append(until_ms)
            self._write()
        try:
            yield
        finally:
            with self._lock:
                self._waits.remove(until_ms)
                self._write()

    def note(self, **known: Any) -> None:  # noqa: ANN401 - of JSON
        """Say who is logged in (0: nobody), and which version the terminal is."""
        with self._lock:
            self._known.update(known)
            self._write()

    def _write(self) -> None:
        draft = self._path + ".new"
        with open(draft, "w", encoding="ascii") as file:  # noqa: PTH123 - of an older Python
            json.dump({"login_until_ms": max(self._waits, default=0), **self._known}, file)
        os.replace(draft, self._path)  # noqa: PTH105 - likewise


class Bound:
    """The functions of the module that connect it, bound to one terminal.

    Args:
        module: The MetaTrader5 module; `install` puts these functions into it.
        directory: Of the terminal, as a Windows path.
        board: Where to say what is going on.
    """

    def __init__(self, module: Any, directory: str, board: Board) -> None:  # noqa: ANN401
        """Keep the module's own functions."""
        self._module = module
        self._directory = directory
        self._board = board
        self._initialize, self._login = module.initialize, module.login
        self._shutdown = module.shutdown

    def install(self) -> None:
        """Take the places of the module's functions, for every client of this process."""
        core = sys.modules.get(self._module.__name__ + "._core")
        for name in ("initialize", "login"):
            original, ours = getattr(self._module, name), getattr(self, name)
            for holder in filter(None, (self._module, core)):
                setattr(holder, name, _in_its_name(original, ours))

    def initialize(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - the module's
        """Connect to the terminal of this server; see the module's own.

        Raises:
            WrongTerminal: Another path was given, or the module reached another terminal, from
                which it has been disconnected again.
        """
        executable = ntpath.join(self._directory, "terminal64.exe")
        given = kwargs.pop("path", None) if not args else args[0]
        if given is not None and not same_path(given, executable):
            raise WrongTerminal(f"this server is bound to {executable}")
        kwargs["portable"] = True
        with self._board.holding(timeout_of(kwargs)):
            done = self._initialize(executable, *args[1:], **kwargs)
        if not done or not self._at_home():
            self._board.note(logged_in=0)
            return False
        version = self._module.version()
        self._board.note(version=f"5.0.{version[1]}" if version else None)
        self._note_account(True)
        return done

    def login(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - the module's
        """Log an account in; see the module's own.

        Raises:
            WrongTerminal: The module is connected to another terminal; nothing was sent to it.
        """
        if not self._at_home():
            return False
        with self._board.holding(timeout_of(kwargs)):
            done = self._login(*args, **kwargs)
        self._note_account(bool(done))
        return done

    def _at_home(self) -> bool:
        """Whether our terminal is at the other end; False when nothing answers there.

        What `last_error()` gives is then about that.
        """
        info = self._module.terminal_info()
        if info is None:
            return False
        if same_path(info.path, self._directory):
            return True
        self._shutdown()
        self._board.note(logged_in=0)
        raise WrongTerminal(f"reached {info.path} instead of {self._directory}")

    def _note_account(self, done: bool) -> None:
        # After a failure its error is for the caller to read: nothing may be asked.
        account = self._module.account_info() if done else None
        self._board.note(logged_in=account.login if account else 0)


def _in_its_name(original: Callable[..., Any], ours: Callable[..., Any]) -> Callable[..., Any]:
    """A function of ours that calls itself what the module's own is called."""

    @functools.wraps(original)
    def function(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        return ours(*args, **kwargs)

    return function


def timeout_of(kwargs: dict[str, Any]) -> int:
    """How long a call with these arguments may take, in milliseconds."""
    given = kwargs.get("timeout", USUAL_TIMEOUT_MS)
    return min(max(given, 0), LONGEST_TIMEOUT_MS) if isinstance(given, int) else USUAL_TIMEOUT_MS


def same_path(one: object, other: str) -> bool:
    """Whether two Windows paths name one file."""
    return isinstance(one, str) and _plain(one) == _plain(other)


def _plain(path: str) -> str:
    return ntpath.normcase(ntpath.normpath(path))


class Server(ThreadedServer):  # type: ignore[misc]  # rpyc ships no types
    """RPyC's server, with sockets that wait for nobody and notice who has gone."""

    def _accept_method(self, sock: socket.socket) -> None:
        # A long answer goes out in several writes; without this the last would wait for an
        # acknowledgement that the other side delays.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        super()._accept_method(sock)


def main() -> int:
    """Serve until killed; return 1 when listening has ended by itself."""
    parser = argparse.ArgumentParser(description="Serve one MetaTrader 5 terminal by RPyC.")
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--directory", required=True, help="of the terminal, a Windows path")
    parser.add_argument("--board", required=True, help="file for the supervisor")
    options = parser.parse_args()
    # RPyC tells each connection at level INFO.
    logging.basicConfig(
        stream=sys.stdout, level=logging.WARNING, format="%(levelname)s %(message)s"
    )
    Bound(mt5, options.directory, Board(options.board)).install()
    server = Server(SlaveService, hostname=options.host, port=options.port, listener_timeout=None)
    print(f"serving {options.directory} on port {options.port}", flush=True)  # noqa: T201 - its log
    server.start()
    return 1


if __name__ == "__main__":
    sys.exit(main())
