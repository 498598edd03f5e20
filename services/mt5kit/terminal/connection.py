"""One RPyC connection with the agent installed; one thread, one round trip a call."""

import contextlib
import importlib.resources
import socket
from typing import Any, Final

import rpyc
from rpyc.core.channel import Channel as RpycChannel
from rpyc.core.service import ClassicClient
from rpyc.core.stream import SocketStream

from mt5kit.errors import TerminalTimeout, TerminalUnavailable
from mt5kit.secret import Secret
from mt5kit.terminal.address import AddressGuard, TerminalAddress

# A terminal on the same network accepts at once; one that does not is away.
CONNECT_TIMEOUT_S: Final = 3.0
# Installing waits for an interpreter that another client's login may hold.
INSTALL_TIMEOUT_S: Final = 10.0
# The agent gives up waiting for its lock this much before we give up waiting for it.
LOCK_MARGIN_S: Final = 0.25

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


class Connection:
    """A connection to a terminal's interpreter; blocking, for one thread. `open` it first.

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

    def open(self, limit_s: float) -> None:
        """Connect and install the agent within about `limit_s` seconds.

        Raises:
            TerminalUnavailable: It cannot be reached, or lies outside the terminals network, or
                what answers has no MetaTrader5 module or does not speak RPyC 5.
            TerminalTimeout: It accepts and does not answer: its interpreter is held.
        """
        numeric = self._guard.resolve(self._address)
        try:
            self._socket = socket.create_connection(
                (numeric, self._address.port), min(limit_s, CONNECT_TIMEOUT_S)
            )
        except OSError as refused:
            raise self._away() from refused
        self._socket.settimeout(None)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if self._aborted:
            self._socket.close()
            raise self._away()
        try:
            self._install(SocketStream(self._socket), min(limit_s, INSTALL_TIMEOUT_S))
        except TimeoutError as held:
            self._socket.close()
            raise self._held() from held
        except ValueError as foreign:
            # The first word of an RPyC 6 server, for one, is none that RPyC 5 can take apart.
            self._socket.close()
            raise TerminalUnavailable(
                f"what answers for terminal {self._address.terminal_id} does not speak RPyC 5",
                retry_after_s=30,
            ) from foreign
        except Exception as gone:
            # RPyC raises here whatever the other side says it raised.
            self._socket.close()
            raise self._away() from gone

    def _install(self, stream: SocketStream, limit_s: float) -> None:
        config = {**_CONFIG, "sync_request_timeout": limit_s}
        self._rpyc = rpyc.core.protocol.Connection(
            ClassicClient(), RpycChannel(stream), config=config
        )
        self._rpyc._local_root.on_connect(self._rpyc)  # noqa: SLF001 - as rpyc.connect does
        self._rpyc.execute(_SOURCE.read_text(encoding="utf-8") + _BIND)
        self._serve = rpyc.async_(self._rpyc.namespace["serve"])

    def call(self, op: str, token: int, args: tuple[object, ...], timeout_s: float) -> object:
        """The agent's reply to one operation, in one round trip.

        Args:
            op: An operation of the agent.
            token: The fencing token of the caller's lease.
            args: Values; a Secret is revealed here and nowhere before.
            timeout_s: Seconds to wait for the reply.

        Raises:
            TerminalTimeout: No reply in time. The call may still run; its late reply is dropped.
            TerminalUnavailable: The connection broke; whether the call ran is unknown.
        """
        try:
            pending = self._serve(
                op,
                token,
                max(timeout_s - LOCK_MARGIN_S, 0.0),
                *(arg.reveal() if isinstance(arg, Secret) else arg for arg in args),
            )
            pending.set_expiry(timeout_s)
            reply: object = pending.value
        except TimeoutError:
            failure = self._held()
        except Exception:  # noqa: BLE001 - RPyC raises here whatever the other side says it raised
            self.abort()
            failure = self._away()
        else:
            return reply
        # Raised only here, without context: RPyC's frames hold the revealed arguments, and a
        # traceback that prints locals would show them.
        raise failure

    def stale(self) -> bool:
        """Whether the terminal hung up while nobody was calling, so that nothing may be sent."""
        if self._socket is None:
            return True
        try:
            return not self._socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except OSError:
            return True

    def close(self) -> None:
        """End an open connection politely; the terminal keeps its login."""
        with contextlib.suppress(EOFError, OSError):
            self._rpyc.close()

    def abort(self) -> None:
        """End the connection from any thread; what waits on it fails at once."""
        self._aborted = True
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)

    def _away(self) -> TerminalUnavailable:
        return TerminalUnavailable(f"terminal {self._address.terminal_id} is away", retry_after_s=1)

    def _held(self) -> TerminalUnavailable:
        return TerminalTimeout(
            f"terminal {self._address.terminal_id} did not answer in time", retry_after_s=2
        )
