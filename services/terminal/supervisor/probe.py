"""A question that a terminal's interpreter has to answer itself.

RPyC's ping, written by hand because the supervisor's Python has no RPyC. A connect proves nothing:
a frozen interpreter still accepts.
"""

from __future__ import annotations

import struct
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import socket

    from terminal.supervisor.clients import Clients

_FRAME = struct.Struct("!LB")
_END = b"\n"
# RPyC writes a tuple of two as 0x11, of three as 0x12, of one as 0x10, and a small whole number n
# as one byte, n + 0x50; bytes of length one follow 0x0a.
_REQUEST, _REPLY, _PING, _VALUE = 1, 2, 1, 1


def _small(number: int) -> bytes:
    return bytes([number + 0x50])


# (request, number 1, (ping, (a tuple whose one item is the value b"?",)))
_ASK = (
    b"\x12" + _small(_REQUEST) + _small(1)
    + b"\x11" + _small(_PING)
    + b"\x11" + _small(2) + b"\x10" + b"\x11" + _small(_VALUE) + b"\x0a?"
)  # fmt: skip
# (reply, number 1, ...)
_ANSWER = b"\x12" + _small(_REPLY) + _small(1)


def answers(clients: Clients, port: int, timeout_s: float) -> bool:
    """Whether the interpreter behind a local port answers within a time."""
    deadline = time.monotonic() + timeout_s
    try:
        with clients.uncounted() as asking:
            asking.settimeout(timeout_s)
            asking.connect(("127.0.0.1", port))
            asking.sendall(_FRAME.pack(len(_ASK), 0) + _ASK + _END)
            length, packed = _FRAME.unpack(_read(asking, _FRAME.size, deadline))
            return not packed and _read(asking, length, deadline).startswith(_ANSWER)
    except (OSError, EOFError):
        return False


def _read(asking: socket.socket, size: int, deadline: float) -> bytes:
    read = b""
    while len(read) < size:
        asking.settimeout(max(deadline - time.monotonic(), 0.001))
        more = asking.recv(size - len(read))
        if not more:
            raise EOFError
        read += more
    return read


class Prober:
    """Asks one terminal again and again, in a thread of its own.

    Args:
        clients: Makes the connections.
        port: Of the terminal.
        probe_s: Between an answer and the next question.
        answer_s: What an answer may take.
    """

    def __init__(self, clients: Clients, port: int, probe_s: float, answer_s: float) -> None:
        self._clients = clients
        self._port = port
        self._probe_s = probe_s
        self._answer_s = answer_s
        self._stop = threading.Event()
        self._seen = (float("-inf"), False)
        threading.Thread(target=self._ask, name=f"probe-{port}", daemon=True).start()

    @property
    def last_answer(self) -> float:
        """Begin of the last question that was answered, by `time.monotonic()`."""
        return self._seen[0]

    @property
    def answering(self) -> bool:
        """Whether the last question was answered."""
        return self._seen[1]

    def stop(self) -> None:
        """Ask no more."""
        self._stop.set()

    def _ask(self) -> None:
        while not self._stop.is_set():
            asked = time.monotonic()
            answered = answers(self._clients, self._port, self._answer_s)
            self._seen = (asked if answered else self._seen[0], answered)
            self._stop.wait(self._probe_s)
