"""One connection with the agent installed; of the event loop, one round trip a call."""

import asyncio
import socket
from collections.abc import Callable
from typing import Final, cast

import structlog

from mt5kit.secret import Secret
from mt5kit.terminal.address import AddressGuard, TerminalAddress
from mt5kit.terminal.installing import Installed, Installing, away, held
from mt5kit.terminal.wire import Frames, OutOfTurn, Reply, read, request

log = structlog.get_logger(__name__)

# The agent gives up waiting for its lock this much before we give up waiting for it.
LOCK_MARGIN_S: Final = 0.25


class Connection(asyncio.Protocol):
    """A connection to a terminal's interpreter. `open` it in a thread, then `attach` it.

    The other side can only answer: whatever else it sends ends the connection.

    Args:
        address: Where the terminal is.
        guard: Which addresses may be spoken to.
    """

    def __init__(self, address: TerminalAddress, guard: AddressGuard) -> None:
        self._address = address
        self._installing = Installing(address, guard)
        self._installed: Installed | None = None
        self._aborted = False
        self._transport: asyncio.Transport | None = None
        self._tell_lost: Callable[[], None] = lambda: None
        self._frames = Frames()
        self._seq = 0
        self._asked: tuple[asyncio.Future[object], asyncio.TimerHandle] | None = None

    @property
    def address(self) -> str:
        """See `Door.address`."""
        if self._installed is None:
            raise RuntimeError("it is not open")
        return self._installed.address

    def open(self, limit_s: float) -> None:
        """Connect and install the agent within about `limit_s` seconds; blocks.

        Raises:
            TerminalUnavailable: See `Installing.run`.
            TerminalTimeout: Likewise.
        """
        self._installed = self._installing.run(limit_s)

    async def attach(self, lost: Callable[[], None]) -> None:
        """Give the open connection to the running event loop; `lost` is told when it has ended.

        Raises:
            TerminalUnavailable: It broke meanwhile.
        """
        installed = self._installed
        if installed is None:
            raise away(self._address)
        self._seq = installed.last_seq
        self._tell_lost = lost
        loop = asyncio.get_running_loop()
        try:
            if not self._aborted:
                await loop.create_connection(lambda: self, sock=installed.socket)
        except OSError as gone:
            raise away(self._address) from gone
        finally:
            if self._transport is None:
                installed.socket.close()
        if self._aborted:
            self.abort()
            raise away(self._address)

    def ask(
        self, op: str, token: int, args: tuple[object, ...], timeout_s: float
    ) -> asyncio.Future[object]:
        """Ask for one operation; one at a time.

        Args:
            op: An operation of the agent.
            token: The fencing token of the caller's lease.
            args: Values; a Secret is revealed here and nowhere before.
            timeout_s: Seconds to wait for the reply.

        Returns:
            The agent's bytes, None for a reply that holds no bytes, or one of these:

        Raises:
            TerminalTimeout: No reply in time. The call may still run; its late reply is dropped.
            TerminalUnavailable: The connection broke; whether the call ran is unknown.
        """
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[object] = loop.create_future()
        self._asked = waiter, loop.call_later(timeout_s, self._give_up)
        wait_s = max(timeout_s - LOCK_MARGIN_S, 0.0)
        if not self._send(op, token, wait_s, args):
            self._end()
        return waiter

    def stale(self) -> bool:
        """Whether the terminal has hung up, noticed or not, so that nothing may be sent."""
        if self._transport is None or self._transport.is_closing() or self._installed is None:
            return True
        try:
            return not self._installed.socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except OSError:
            return True

    def abort(self) -> None:
        """End the connection, or the opening of it; a call under way fails at once."""
        self._aborted = True
        if self._transport is None:
            self._installing.abort()
        self._end()

    # -- as the event loop's protocol -------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        # uvloop's transports are of no class of asyncio's.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        try:
            for body in self._frames.feed(data):
                self._take(read(body))
        except OutOfTurn as broken:
            log.info("terminal_cut", terminal_id=self._address.terminal_id, why=str(broken))
            self._end()

    def eof_received(self) -> None:
        """See `asyncio.Protocol`; what has not been written need not be."""
        self._end()

    def connection_lost(self, _exc: Exception | None) -> None:
        """See `asyncio.Protocol`.

        The exception is not passed on: its frames may hold what was being written.
        """
        self._end()
        self._tell_lost()

    # -- within -----------------------------------------------------------------------------------

    def _send(self, op: str, token: int, wait_s: float, args: tuple[object, ...]) -> bool:
        """Write the request; False when it cannot be, for a reason that nobody may see.

        Frames in here hold the revealed arguments, and a traceback that prints locals would show
        them: none leaves.
        """
        if self._transport is None or self._transport.is_closing() or self._installed is None:
            return False
        plain = (arg.reveal() if isinstance(arg, Secret) else arg for arg in args)
        self._seq += 1
        try:
            self._transport.write(
                request(self._seq, self._installed.function, (op, token, wait_s, *plain))
            )
        except Exception:  # noqa: BLE001 - see above
            return False
        return True

    def _take(self, reply: Reply) -> None:
        if reply.seq != self._seq:
            # To a call that was given up, or to RPyC's word of an object it let go.
            return
        if reply.failed:
            # The agent never raises: whoever answers there, it is not ours.
            self._end()
            return
        waiter = self._settle()
        if waiter is not None:
            waiter.set_result(reply.value)

    def _give_up(self) -> None:
        waiter = self._settle()
        if waiter is not None:
            waiter.set_exception(held(self._address))

    def _end(self) -> None:
        waiter = self._settle()
        if waiter is not None:
            waiter.set_exception(away(self._address))
        if self._transport is not None:
            self._transport.abort()

    def _settle(self) -> asyncio.Future[object] | None:
        """The future of the call under way, which ends with this; None when nobody waits."""
        asked, self._asked = self._asked, None
        if asked is None:
            return None
        waiter, timer = asked
        timer.cancel()
        return None if waiter.done() else waiter
