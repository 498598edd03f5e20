"""One process of a supervisor: started, watched, restarted, always on the same port."""

import asyncio
import logging
import time
from collections import deque
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext, ForkServerProcess
from typing import TYPE_CHECKING

from terminal_sim.process.wire import Listening, LogLine, Message, decode, log_line

if TYPE_CHECKING:
    from collections.abc import Callable

_LOG = logging.getLogger("terminal_sim.supervisor")
# Lines kept of each process's log: the most that can be asked for.
LOG_LINES = 1000
# The first restart comes at once; then each waits twice as long as the one before.
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.1, 10.0
# After so long a run the trouble counts as over.
_STEADY_S = 30.0
# A process that has not ended by then after SIGTERM is stopped or stuck.
_GRACE_S = 1.0
_GRAVE = frozenset(("ERROR", "CRITICAL"))


class Starting:
    """What all processes of a supervisor are started with.

    Attributes:
        context: Forks them off one parent, whose memory they share.
        lock: Held while a process is started: the fork server takes one request at a time.
    """

    def __init__(self) -> None:
        self.context: ForkServerContext = get_context("forkserver")
        self.context.set_forkserver_preload(["terminal_sim.supervisor.preload"])
        self.lock = asyncio.Lock()


class Member:
    """A terminal or a broker, and whatever process presently runs it.

    Args:
        name: For lists of processes and log lines.
        host: Address it listens on.
        port: Port it listens on.
        starting: How processes are started.
        grace_s: How long it may take to end when it is asked to.

    Attributes:
        state: starting, running, restarting or stopped.
        restarts: How often it was started again.
        started_ms: When, in UTC epoch milliseconds; 0: not yet.
        log: Its newest lines.
        listening: Set while it listens.
        on_listening: Called whenever it has begun to.
    """

    def __init__(
        self, name: str, host: str, port: int, starting: Starting, *, grace_s: float = _GRACE_S
    ) -> None:
        self.name = name
        self.host = host
        self.port = port
        self.state = "starting"
        self.restarts = 0
        self.started_ms = 0
        self.log: deque[LogLine] = deque(maxlen=LOG_LINES)
        self.listening = asyncio.Event()
        self.on_listening: Callable[[], None] = _nothing
        self._starting = starting
        self._grace_s = grace_s
        self._process: ForkServerProcess | None = None
        self._ended = asyncio.Event()
        self._ended_once = asyncio.Event()
        self._hurry = asyncio.Event()
        self._stopping = False

    @property
    def pid(self) -> int | None:
        """Process id, while there is a process."""
        return self._process.pid if self._process else None

    async def keep(self) -> None:
        """Run it until :meth:`stop`, starting it again whenever it ends."""
        wait_s = 0.0
        while not self._stopping:
            began = time.monotonic()
            try:
                await self._run()
            except OSError as error:  # no memory, no descriptors: try again as after a crash
                self._note("ERROR", f"could not be started: {error}")
            if self._stopping:
                break
            self._note("WARNING", f"ended; restart {self.restarts + 1} in {wait_s:.1f} s")
            self.state = "restarting"
            self.restarts += 1
            if time.monotonic() - began > _STEADY_S:
                wait_s = 0.0
            await self._pause(wait_s)
            wait_s = min(max(2 * wait_s, _FIRST_WAIT_S), _LONGEST_WAIT_S)
        self.state = "stopped"

    def kill(self) -> bool:
        """Kill the process, frozen or not; return whether there was one."""
        if self._process is None:
            return False
        self._process.kill()
        return True

    async def restart(self) -> None:
        """Kill the process and return when its successor listens."""
        self._hurry.set()
        if self.kill():
            # Until it has ended, its own word that it listens may still be on the way.
            await self._ended.wait()
        self.listening.clear()
        await self.listening.wait()

    async def stop(self) -> None:
        """End the process, by force if it does not end by itself, and start no other."""
        self._stopping = True
        self._hurry.set()
        async with self._starting.lock:
            process = self._process
        if process is None:
            return
        process.terminate()
        try:
            await asyncio.wait_for(self._ended.wait(), self._grace_s)
        except TimeoutError:
            process.kill()
            await self._ended.wait()

    async def failing(self) -> str:
        """Wait until a process has ended for the first time, and return its last words."""
        await self._ended_once.wait()
        words = (line.message for line in reversed(self.log) if line.level in _GRAVE)
        return next(words, "it ended at once")

    def _pipes(self) -> tuple[Connection, Connection]:
        """Return our end of a new pipe and that of the process to be started."""
        raise NotImplementedError

    def _launch(self, pipe: Connection) -> ForkServerProcess:
        """Start a process, in another thread."""
        raise NotImplementedError

    def _unplug(self) -> None:
        """Write nothing more to the pipe: its process has ended, or there is none."""

    def _hear(self, message: Message) -> None:
        """Take what the process tells besides its log."""

    async def _run(self) -> None:
        """Run one process from its start to its end."""
        loop = asyncio.get_running_loop()
        self._ended.clear()
        async with self._starting.lock:
            if self._stopping:
                return
            # From now on what it is told waits for it in the pipe.
            pipe, theirs = self._pipes()
            try:
                process = await asyncio.to_thread(self._launch, theirs)
            except OSError:
                self._unplug()
                pipe.close()
                raise
            finally:
                theirs.close()
            self._process = process
        self.started_ms = time.time_ns() // 1_000_000
        loop.add_reader(pipe.fileno(), self._read, pipe)
        loop.add_reader(process.sentinel, self._ended.set)
        await self._ended.wait()
        loop.remove_reader(process.sentinel)
        loop.remove_reader(pipe.fileno())
        self._process = None
        self._unplug()
        # Its last words count: a fault that made it crash has told how often it has acted.
        while self._read(pipe):
            pass
        self.listening.clear()
        self._ended_once.set()
        pipe.close()
        process.join()
        process.close()

    def _read(self, pipe: Connection) -> bool:
        """Take one message; return whether there was one."""
        try:
            if not pipe.poll():
                return False
            message = decode(pipe.recv_bytes())
        except (EOFError, ConnectionResetError):
            asyncio.get_running_loop().remove_reader(pipe.fileno())
            return False
        if isinstance(message, Listening):
            self.state = "running"
            self.listening.set()
            self.on_listening()
        elif isinstance(message, LogLine):
            self.log.append(message)
            _LOG.log(_level(message.level), "%s: %s", self.name, message.message)
        else:
            self._hear(message)
        return True

    def _note(self, level: str, text: str) -> None:
        message = f"{self.name} {text}"
        self.log.append(log_line(time.time(), level, message))
        _LOG.log(_level(level), message)

    async def _pause(self, wait_s: float) -> None:
        """Wait, unless somebody asked for a restart or the end."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._hurry.wait(), wait_s)
        self._hurry.clear()


def _level(name: str) -> int:
    return logging.getLevelNamesMapping().get(name, logging.INFO)


def _nothing() -> None:
    """Nobody has to be told."""
