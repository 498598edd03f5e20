"""Commands on their way to a process that reads them when it can."""

import asyncio
from collections import deque
from multiprocessing.connection import Connection

from terminal_sim.process.wire import Begin, Command, encode

# Of a process that does not read so many, nobody knows what it would still do.
_MOST_WAITING = 1000


class Outbox:
    """Keeps what the pipe does not take, and writes it as soon as it does.

    A command is smaller than what a pipe writes whole or not at all: it needs no second half.

    Args:
        pipe: Its end must be non-blocking.
    """

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self._waiting: deque[bytes] = deque()
        self._loop = asyncio.get_running_loop()

    def put(self, command: Command) -> None:
        """Send a command after those that wait.

        Raises:
            BlockingIOError: The process has not read its commands for a long time. Only what is to
                begin is refused: what has begun can always be ended.
        """
        if isinstance(command, Begin) and len(self._waiting) >= _MOST_WAITING:
            raise BlockingIOError
        self._waiting.append(encode(command))
        if len(self._waiting) == 1:
            self._write()

    def close(self) -> None:
        """Forget what waits; the process has ended, its successor is told what it has to know."""
        self._waiting.clear()
        self._loop.remove_writer(self._pipe.fileno())

    def _write(self) -> None:
        try:
            while self._waiting:
                self._pipe.send_bytes(self._waiting[0])
                self._waiting.popleft()
        except BlockingIOError:
            self._loop.add_writer(self._pipe.fileno(), self._write)
        except OSError:  # it has just ended
            self.close()
        else:
            self._loop.remove_writer(self._pipe.fileno())
