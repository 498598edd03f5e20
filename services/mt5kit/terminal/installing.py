"""Connecting to a terminal and installing the agent: RPyC itself, blocking, in a thread."""

import contextlib
import importlib.resources
import socket
from dataclasses import dataclass
from typing import Any, Final

import rpyc
from rpyc.core.channel import Channel as RpycChannel
from rpyc.core.service import ClassicClient
from rpyc.core.stream import ClosedFile, SocketStream

from mt5kit.errors import TerminalTimeout, TerminalUnavailable
from mt5kit.terminal.address import AddressGuard, TerminalAddress
from mt5kit.terminal.wire import Handle

# A terminal on the same network accepts at once; one that does not is away.
CONNECT_TIMEOUT_S: Final = 3.0
# Installing waits for an interpreter that another client's login may hold.
INSTALL_TIMEOUT_S: Final = 10.0

_CONFIG: Final[dict[str, Any]] = {
    "allow_pickle": False,
    "import_custom_exceptions": False,
    "instantiate_custom_exceptions": False,
    "include_local_traceback": False,
}
_SOURCE: Final = importlib.resources.files(__package__).joinpath("agent.py")
# Appended to the agent's source: each connection gets an agent of its own in its own namespace.
_BIND: Final = """
_AGENT = Agent()
def serve(op, token, wait_s, *args):
    return invoke(_AGENT, op, token, wait_s, args)
"""


@dataclass(frozen=True, slots=True)
class Installed:
    """A connection that has its agent, and that RPyC has let go of.

    Attributes:
        socket: Non-blocking; between two frames both ways.
        function: The agent's `serve(op, token, wait_s, *args)`.
        last_seq: The highest number of a request so far.
        address: The numeric address it is connected to.
    """

    socket: socket.socket
    function: Handle
    last_seq: int
    address: str


class _Lent(SocketStream):  # type: ignore[misc]  # rpyc ships no types
    """A socket that RPyC has for a time."""

    def give_back(self) -> None:
        """From here on RPyC can neither write to the socket, nor read it, nor close it."""
        self.sock = ClosedFile


class Installing:
    """One attempt to connect; `run` it in a thread.

    `ClassicClient` gives the terminal no way to run code here, unlike `rpyc.classic.connect`.

    Args:
        address: Where the terminal is.
        guard: Which addresses may be spoken to.
    """

    def __init__(self, address: TerminalAddress, guard: AddressGuard) -> None:
        self._address = address
        self._guard = guard
        self._socket: socket.socket | None = None
        self._aborted = False

    def run(self, limit_s: float) -> Installed:
        """Connect and install the agent within about `limit_s` seconds.

        Raises:
            TerminalUnavailable: It cannot be reached, or lies outside the terminals network, or
                what answers has no MetaTrader5 module or does not speak RPyC 5.
            TerminalTimeout: It accepts and does not answer: its interpreter is held.
        """
        numeric = self._guard.resolve(self._address)
        try:
            self._socket = opened = socket.create_connection(
                (numeric, self._address.port), min(limit_s, CONNECT_TIMEOUT_S)
            )
        except OSError as refused:
            raise away(self._address) from refused
        opened.settimeout(None)
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if self._aborted:
            opened.close()
            raise away(self._address)
        try:
            return _install(opened, numeric, min(limit_s, INSTALL_TIMEOUT_S))
        except TimeoutError as late:
            opened.close()
            raise held(self._address) from late
        except ValueError as foreign:
            # The first word of an RPyC 6 server, for one, is none that RPyC 5 can take apart.
            opened.close()
            raise TerminalUnavailable(
                f"what answers for terminal {self._address.terminal_id} does not speak RPyC 5",
                retry_after_s=30,
            ) from foreign
        except Exception as gone:
            # RPyC raises here whatever the other side says it raised.
            opened.close()
            raise away(self._address) from gone

    def abort(self) -> None:
        """End the attempt from any thread, as soon as it has a socket."""
        self._aborted = True
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)


def _install(opened: socket.socket, numeric: str, limit_s: float) -> Installed:
    stream = _Lent(opened)
    config = {**_CONFIG, "sync_request_timeout": limit_s}
    conn = rpyc.core.protocol.Connection(ClassicClient(), RpycChannel(stream), config=config)
    try:
        conn._local_root.on_connect(conn)  # noqa: SLF001 - as rpyc.connect does
        conn.execute(_SOURCE.read_text(encoding="utf-8") + _BIND)
        serve = conn.namespace["serve"]
        function: Handle = serve.____id_pack__
        last_seq: int = conn._get_seq_id()  # noqa: SLF001 - numbers go on where RPyC stops
    finally:
        # Before any of its proxies dies: it would have the other side forget what we call.
        stream.give_back()
        conn.close()
    opened.setblocking(False)
    return Installed(opened, function, last_seq, numeric)


def away(address: TerminalAddress) -> TerminalUnavailable:
    """There is no connection, or it broke."""
    return TerminalUnavailable(f"terminal {address.terminal_id} is away", retry_after_s=1)


def held(address: TerminalAddress) -> TerminalTimeout:
    """It did not answer: its interpreter is held."""
    return TerminalTimeout(
        f"terminal {address.terminal_id} did not answer in time", retry_after_s=2
    )
