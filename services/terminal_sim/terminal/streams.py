"""Streams to clients that delay and lose what is written, while a fault says so."""

import random
import socket
import struct
import threading
from collections.abc import Callable

from rpyc.core.channel import Channel
from rpyc.core.stream import ClosedFile, SocketStream
from rpyc.utils.server import ThreadedServer

from terminal_sim.faults.active import ActiveFaults
from terminal_sim.faults.kinds import UnstableLink

# SO_LINGER of (on, 0 s): closing resets the connection instead of ending it in good order.
_RESET = struct.pack("ii", 1, 0)


class Weather:
    """What presently happens to bytes, for all connections of a terminal.

    Args:
        spent: Called with a fault's id whenever it has delayed or lost a write.
        seed: Of the chances.

    Attributes:
        waiting: How many writes are delayed now.
    """

    def __init__(self, spent: Callable[[int], None], seed: str) -> None:
        self._lock = threading.Condition()
        self._ended = 0
        self.waiting = 0
        self._faults = ActiveFaults(spent)
        self._random = random.Random(seed)  # noqa: S311 - to be repeated, not to be secret

    def begin(self, fault_id: int, fault: UnstableLink) -> None:
        """Begin a fault, for connections there are and those to come."""
        with self._lock:
            self._faults.add(fault_id, fault)

    def end(self, fault_id: int | None) -> None:
        """End a fault, or all."""
        with self._lock:
            self._faults.remove(fault_id)
            self._ended += 1
            self._lock.notify_all()

    def wait(self, seconds: float) -> None:
        """Let time pass, unless a fault is ended meanwhile."""
        with self._lock:
            ended = self._ended
            self.waiting += 1
            self._lock.wait_for(lambda: self._ended != ended, seconds)
            self.waiting -= 1

    def next_write(self) -> tuple[float, str | None]:
        """Return how many seconds a write waits, and how it is lost; None: it is not."""
        if not self._faults:
            return 0.0, None
        with self._lock:
            fault = self._faults.first(UnstableLink)
            if fault is None:
                return 0.0, None
            delay = fault.delay_ms + self._random.uniform(-fault.jitter_ms, fault.jitter_ms)
            lost = self._random.random() < fault.loss
            if delay > 0 or lost:
                self._faults.take(UnstableLink)
            return max(delay, 0.0) / 1000, fault.how if lost else None


class WeatheredStream(SocketStream):  # type: ignore[misc]  # rpyc ships no types
    """A stream that the weather can reach.

    Args:
        sock: The connection.
        weather: What happens to what is written.
    """

    __slots__ = ("_link", "_mute", "_weather")

    def __init__(self, sock: socket.socket, weather: Weather) -> None:
        super().__init__(sock)
        self._link = sock
        self._weather = weather
        self._mute = False

    def write(self, data: bytes) -> None:
        """Write, later or in part or not at all.

        A connection that has fallen silent stays so: whoever forgot it does not remember it.

        Raises:
            EOFError: The connection is broken, or was just broken on purpose.
        """
        delay_s, loss = self._weather.next_write()
        if delay_s:
            self._weather.wait(delay_s)
        if loss == "silence":
            self._mute = True
        if self._mute:
            return
        if loss == "cut":
            self._cut(data)
        super().write(data)

    def _cut(self, data: bytes) -> None:
        super().write(data[: len(data) // 2])
        # Closed without a shutdown, which would end the connection in good order first.
        self.sock = ClosedFile  # type: ignore[misc]  # a slot of rpyc's class
        self._link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self._link.close()
        raise EOFError("the link was cut on purpose")


class WeatheredServer(ThreadedServer):  # type: ignore[misc]  # rpyc ships no types
    """An RPyC server whose connections the weather can reach.

    Args:
        weather: What happens to what is written.
        settings: Of the server of rpyc.
    """

    def __init__(self, weather: Weather, *args: object, **settings: object) -> None:
        super().__init__(*args, **settings)
        self._weather = weather

    def _serve_client(self, sock: socket.socket, credentials: object) -> None:
        """Do as rpyc's server of every 5.x does, with another stream."""
        ends = sock.getsockname(), sock.getpeername()
        config = {
            **self.protocol_config,
            "credentials": credentials,
            "endpoints": ends,
            "logger": self.logger,
        }
        stream = WeatheredStream(sock, self._weather)
        self._handle_connection(self.service._connect(Channel(stream), config))  # noqa: SLF001 - rpyc's own way
