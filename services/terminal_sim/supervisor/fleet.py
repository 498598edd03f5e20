"""The terminals of a supervisor: started, watched, restarted."""

import asyncio
import logging
import socket
import time
from collections import deque
from collections.abc import Iterator
from multiprocessing import forkserver, get_context
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess

from terminal_sim.terminal.board import SharedBoard
from terminal_sim.terminal.process import Settings, run
from terminal_sim.terminal.wire import Listening, LogLine, decode, log_line

_LOG = logging.getLogger("terminal_sim.supervisor")
# Lines kept of each terminal's log: the most that can be asked for.
LOG_LINES = 1000
# The first restart comes at once; then each waits twice as long as the one before.
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.1, 10.0
# After so long a run the trouble counts as over.
_STEADY_S = 30.0
# A terminal that has not ended by then after SIGTERM is stopped or stuck.
_GRACE_S = 1.0


class Member:
    """One terminal and whatever process presently runs it.

    Args:
        settings: How to run it.
        board: Where it posts its logins.
        starting: Held while a process is started: the fork server takes one request at a time.
    """

    def __init__(self, settings: Settings, board: SharedBoard, starting: asyncio.Lock) -> None:
        self.settings = settings
        self.board = board
        self.state = "starting"
        self.restarts = 0
        self.started_ms = 0
        self.log: deque[LogLine] = deque(maxlen=LOG_LINES)
        self.listening = asyncio.Event()
        self._starting = starting
        self._process: ForkServerProcess | None = None
        self._ended = asyncio.Event()
        self._hurry = asyncio.Event()
        self._stopping = False

    @property
    def pid(self) -> int | None:
        """Process id, while there is a process."""
        return self._process.pid if self._process else None

    async def keep(self) -> None:
        """Run the terminal until :meth:`stop`, starting it again whenever it ends."""
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

    async def restart(self) -> None:
        """Kill the process and return when its successor listens."""
        self._hurry.set()
        if self._process:
            self._process.kill()
            # Until it has ended, its own word that it listens may still be on the way.
            await self._ended.wait()
        self.listening.clear()
        await self.listening.wait()

    async def stop(self) -> None:
        """End the process, by force if it does not end by itself, and start no other."""
        self._stopping = True
        self._hurry.set()
        async with self._starting:
            process = self._process
        if process is None:
            return
        process.terminate()
        try:
            await asyncio.wait_for(self._ended.wait(), _GRACE_S)
        except TimeoutError:
            process.kill()
            await self._ended.wait()

    async def _run(self) -> None:
        """Run one process from its start to its end."""
        loop = asyncio.get_running_loop()
        self._ended.clear()
        self.board.clear()
        async with self._starting:
            if self._stopping:
                return
            process, pipe = await asyncio.to_thread(self._launch)
            self._process = process
        self.started_ms = time.time_ns() // 1_000_000
        loop.add_reader(pipe.fileno(), self._read, pipe)
        loop.add_reader(process.sentinel, self._ended.set)
        await self._ended.wait()
        loop.remove_reader(process.sentinel)
        loop.remove_reader(pipe.fileno())
        self.listening.clear()
        self._process = None
        pipe.close()
        process.join()
        process.close()

    def _launch(self) -> tuple[ForkServerProcess, Connection]:
        context = get_context("forkserver")
        reader, writer = context.Pipe(duplex=False)
        name = f"mt5-terminal-{self.settings.number}"
        arguments = (self.settings, self.board, writer)
        process = context.Process(target=run, args=arguments, name=name)
        process.start()
        writer.close()
        return process, reader

    def _read(self, pipe: Connection) -> None:
        try:
            message = decode(pipe.recv_bytes())
        except EOFError:
            asyncio.get_running_loop().remove_reader(pipe.fileno())
            return
        if isinstance(message, Listening):
            self.state = "running"
            self.listening.set()
        else:
            self.log.append(message)
            _LOG.info("%s %s", message.level, message.message)

    def _note(self, level: str, text: str) -> None:
        message = f"mt5-terminal-{self.settings.number} {text}"
        self.log.append(log_line(time.time(), level, message))
        _LOG.log(logging.getLevelNamesMapping()[level], message)

    async def _pause(self, wait_s: float) -> None:
        """Wait, unless somebody asked for a restart or the end."""
        try:
            await asyncio.wait_for(self._hurry.wait(), wait_s)
        except TimeoutError:
            return
        self._hurry.clear()


class Fleet:
    """All terminals of a supervisor.

    Args:
        settings: One for each terminal; port 0 takes a free port and keeps it.

    Raises:
        OSError: A port is in use.
    """

    def __init__(self, settings: list[Settings]) -> None:
        context = get_context("forkserver")
        context.set_forkserver_preload(["terminal_sim.supervisor.preload"])
        starting = asyncio.Lock()
        self._reserved = [_reserve(each.host, each.port) for each in settings]
        self._tasks: list[asyncio.Task[None]] = []
        self.draining = False
        self.members = {
            each.number: Member(_with_port(each, held), SharedBoard(context), starting)
            for each, held in zip(settings, self._reserved, strict=True)
        }

    def __iter__(self) -> Iterator[Member]:
        return iter(self.members.values())

    async def start(self) -> None:
        """Start every terminal and return when all listen.

        To be called in the main thread: the parent of the terminals ends with its thread.
        """
        forkserver.ensure_running()
        self._tasks = [asyncio.create_task(member.keep()) for member in self]
        await asyncio.gather(*(member.listening.wait() for member in self))

    async def stop(self) -> None:
        """End every terminal."""
        await asyncio.gather(*(member.stop() for member in self))
        await asyncio.gather(*self._tasks)
        for held in self._reserved:
            held.close()


def _reserve(host: str, port: int) -> socket.socket:
    """Bind a port without listening, so that it stays ours between two processes of a terminal."""
    held = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        held.bind((host, port))
    except OSError as error:
        held.close()
        raise OSError(error.errno, f"port {port} of {host}: {error.strerror}") from error
    return held


def _with_port(settings: Settings, held: socket.socket) -> Settings:
    port = held.getsockname()[1]
    return Settings(settings.number, settings.host, port, settings.scenario, settings.timing)
