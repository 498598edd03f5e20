"""A terminal's process: the module, behind RPyC, on a port of its own."""

import logging
import os
import signal
import threading
from collections.abc import Callable
from multiprocessing import connection, parent_process
from multiprocessing.connection import Connection

import msgspec
from rpyc.core.service import SlaveService

from terminal_sim.faults.active import ActiveFaults
from terminal_sim.market.clocks import SystemClock
from terminal_sim.module.build import install
from terminal_sim.process.ties import end_with_parent, take_name
from terminal_sim.process.wire import Listening, PipeHandler
from terminal_sim.terminal.board import SharedBoard
from terminal_sim.terminal.commands import Commands, Upstream
from terminal_sim.terminal.line import SocketBrokers
from terminal_sim.terminal.session import Terminal, Timing
from terminal_sim.terminal.streams import Weather, WeatheredServer
from terminal_sim.terminal.tally import Tally

_LOG = logging.getLogger("terminal_sim")


class Settings(msgspec.Struct, frozen=True):
    """How to run one terminal.

    Attributes:
        number: From 1.
        host: Address to listen on.
        port: Port to listen on.
        brokers: Host and port of the broker of each server; the first server is the one a login
            without a server means at first.
        timing: How long calls take.
        seed: Of the chances of faults.
    """

    number: int
    host: str
    port: int
    brokers: dict[str, tuple[str, int]]
    timing: Timing
    seed: int = 0


class Server(WeatheredServer):
    """An RPyC server that tells when it listens.

    Args:
        weather: Of its connections.
        settings: Where to listen.
        ready: Called with the port.
    """

    def __init__(self, weather: Weather, settings: Settings, ready: Callable[[int], None]) -> None:
        super().__init__(
            weather,
            SlaveService,
            hostname=settings.host,
            port=settings.port,
            listener_timeout=None,
            logger=_quiet_logger(),
        )
        self._ready = ready

    def _listen(self) -> None:
        super()._listen()
        self._ready(self.port)


def run(settings: Settings, board: SharedBoard, pipe: Connection) -> None:
    """Serve until killed; the target of a terminal's process."""
    _settle(settings.number)
    os.set_blocking(pipe.fileno(), False)
    _LOG.addHandler(PipeHandler(pipe))
    _LOG.setLevel(logging.INFO)
    _LOG.propagate = False
    name = f"mt5-terminal-{settings.number}"
    upstream = Upstream(pipe)
    tally = Tally(upstream.send)
    chances = f"{settings.seed}:{settings.number}"
    weather = Weather(tally, chances)
    terminal = Terminal(
        SocketBrokers(settings.brokers, name),
        SystemClock(),
        settings.timing,
        board,
        faults=ActiveFaults(tally),
        seed=settings.seed,
        name=name,
    )
    install(terminal)
    _LOG.info("chances of faults are seeded with %s", chances)
    commands = Commands(pipe, upstream, terminal, weather, tally)
    commands.start()
    threading.Thread(target=terminal.keep_line, name="line-keeper", daemon=True).start()

    def ready(port: int) -> None:
        _LOG.info("mt5-terminal-%d (pid %d) listens on port %d", settings.number, os.getpid(), port)
        pipe.send_bytes(msgspec.json.encode(Listening(port)))
        commands.serving.set()

    Server(weather, settings, ready).start()


def _settle(number: int) -> None:
    """Take a name, leave Ctrl-C to the supervisor, and see to ending together with it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    take_name(f"mt5-terminal-{number}")
    end_with_parent()  # reaches a frozen terminal; the thread below would have to wait
    threading.Thread(target=_end_with_supervisor, name="supervisor-watch", daemon=True).start()


def _end_with_supervisor() -> None:
    supervisor = parent_process()
    if supervisor is None:
        return
    connection.wait([supervisor.sentinel])
    os._exit(1)


def _quiet_logger() -> logging.Logger:
    """Return rpyc's logger: its chatter about each connection is not worth a line."""
    logger = _LOG.getChild("rpyc")
    logger.setLevel(logging.WARNING)
    return logger
