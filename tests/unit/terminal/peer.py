"""The other end of a connection, in RPyC's own words: a terminal that does as a test says."""

import asyncio
import contextlib
import socket
from collections.abc import Callable
from typing import Any, Self

from rpyc.core import brine, consts
from rpyc.core.channel import Channel
from rpyc.core.stream import SocketStream

from mt5kit.terminal.address import AddressGuard, TerminalAddress
from mt5kit.terminal.connection import Connection
from mt5kit.terminal.installing import Installed
from mt5kit.terminal.wire import Handle

SERVE: Handle = ("builtins.function", 11, 22)
LAST_SEQ = 40
ADDRESS = TerminalAddress("t-1", "127.0.0.1", 9)
GUARD = AddressGuard(["127.0.0.0/8"])


class Peer:
    """One end of a pair of sockets; the other is a `Connection` that has its agent."""

    def __init__(self) -> None:
        self.socket, self._ours = socket.socketpair()
        self.socket.settimeout(30)
        self._ours.setblocking(False)
        self._channel = Channel(SocketStream(self.socket))
        self.connection: Connection | None = None
        self.lost = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self.connection is not None:
            self.connection.abort()
            # The loop closes it in a later round.
            await asyncio.sleep(0.001)
        self.socket.close()
        self._ours.close()

    async def connect(self, made: Callable[[Connection], None] = lambda _: None) -> Connection:
        """A connection to this peer; `made` is told of it before the loop has it."""
        self.connection = connection = Connection(ADDRESS, GUARD)
        # Installing needs a whole RPyC server, which the integration tests have.
        connection._installed = Installed(self._ours, SERVE, LAST_SEQ, "127.0.0.1")
        made(connection)
        await connection.attach(self._note_lost)
        return connection

    def _note_lost(self) -> None:
        self.lost += 1

    async def asked(self) -> tuple[int, tuple[object, ...]]:
        """Number and arguments of the next request, which must be a call of `SERVE`."""
        message: Any = brine.load(await asyncio.to_thread(self._channel.recv))
        kind, seq, (handler, (label, (function, args, kwargs))) = message
        assert (kind, handler, label) == (
            consts.MSG_REQUEST, consts.HANDLE_CALL, consts.LABEL_TUPLE,
        )  # fmt: skip
        assert function == (consts.LABEL_LOCAL_REF, SERVE)
        assert args[0] == consts.LABEL_VALUE
        assert kwargs == (consts.LABEL_VALUE, ())
        return seq, args[1]

    def send(self, *message: object) -> None:
        """Send a message, as RPyC does."""
        self._channel.send(brine.dump(message))

    def answer(self, seq: int, value: object) -> None:
        """Reply with a plain value."""
        self.send(consts.MSG_REPLY, seq, (consts.LABEL_VALUE, value))

    async def hung_up_on(self) -> bytes:
        """What was written here until the other side ended."""
        got = b""
        with contextlib.suppress(ConnectionResetError):
            while more := await asyncio.to_thread(self.socket.recv, 65536):
                got += more
        return got
