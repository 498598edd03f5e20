"""One RPyC connection with the agent installed; one thread, one round trip a call."""

import contextlib
import importlib.resources
import select
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
    "sync_request_timeout": INSTALL_TIMEOUT_S,
}
_SOURCE: Final = importlib.resources.files(__package__).joinpath("agent.py")
# Appended to the agent's source: each connection gets an agent of its own in its own namespace.
_BIND: Final = """
_AGENT = Agent()
def serve(op, token, wait_s, *args):
    return invoke(_AGENT, op, token, wait_s, args)
"""
# What RPyC raises for a peer that is gone, dying or not an RPyC server.
GONE: Final = (EOFError, OSError, rpyc.core.vinegar.GenericException, ValueError)


class Connection:
    """An open connection to a terminal's interpreter; blocking, for one thread.

    `ClassicClient` gives the terminal no way to run code here, unlike `rpyc.classic.connect`.

    Raises:
        TerminalUnavailable: It cannot be reached, or lies outside the terminals network.
        TerminalTimeout: It accepts and does not answer: its interpreter is held.
    """

    def __init__(self, address: TerminalAddress, guard: AddressGuard) -> None:
        self._name = address.terminal_id
        numeric = guard.resolve(address)
        try:
            self._socket = socket.create_connection((numeric, address.port), CONNECT_TIMEOUT_S)
        except OSError as refused:
            raise self._away() from refused
        self._socket.settimeout(None)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        stream = SocketStream(self._socket)
        try:
            self._rpyc = rpyc.core.protocol.Connection(
                ClassicClient(), RpycChannel(stream), config=_CONFIG
            )
            self._rpyc._local_root.on_connect(self._rpyc)  # noqa: SLF001 - as rpyc.connect does
            self._rpyc.execute(_SOURCE.read_text(encoding="utf-8") + _BIND)
            self._serve = rpyc.async_(self._rpyc.namespace["serve"])
        except TimeoutError as held:
            stream.close()
            raise self._held() from held
        except GONE as gone:
            stream.close()
            raise self._away() from gone

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
        except GONE:
            self.abort()
            failure = self._away()
        else:
            return reply
        # Raised only here, without context: RPyC's frames hold the revealed arguments, and a
        # traceback that prints locals would show them.
        raise failure

    def stale(self) -> bool:
        """Whether the terminal hung up while nobody was calling, so that nothing may be sent."""
        try:
            readable, _, _ = select.select([self._socket], [], [], 0)
            return bool(readable) and not self._socket.recv(1, socket.MSG_PEEK)
        except (OSError, ValueError):
            return True

    def close(self) -> None:
        """End the connection politely; the terminal keeps its login."""
        with contextlib.suppress(*GONE):
            self._rpyc.close()

    def abort(self) -> None:
        """End the connection from any thread; a call that waits on it fails at once."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def _away(self) -> TerminalUnavailable:
        return TerminalUnavailable(f"terminal {self._name} is away", retry_after_s=1)

    def _held(self) -> TerminalUnavailable:
        return TerminalTimeout(f"terminal {self._name} did not answer in time", retry_after_s=2)
