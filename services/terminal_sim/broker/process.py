"""A broker's process: one server's accounts, behind a TCP port of its own."""

import asyncio
import logging
import os
import signal
import sqlite3
from multiprocessing import parent_process
from multiprocessing.connection import Connection
from pathlib import Path

import msgspec

from terminal_sim.broker.house import House
from terminal_sim.broker.journal import Journal, JournalError
from terminal_sim.broker.server import Server
from terminal_sim.market.clocks import Clock, SystemClock
from terminal_sim.process.ties import end_with_parent, take_name
from terminal_sim.process.wire import Listening, PipeHandler
from terminal_sim.scenario.model import Scenario

_LOG = logging.getLogger("terminal_sim")


class BrokerSettings(msgspec.Struct, frozen=True):
    """How to run the broker of one server.

    Attributes:
        server: Name of the server; one of the scenario's.
        host: Address to listen on.
        port: Port to listen on; 0 takes a free one.
        scenario: Servers and accounts.
        data_dir: Where its journal is kept; None: it forgets everything when it ends.
        key: What a supervisor proves itself with; None: anybody may act as one.
    """

    server: str
    host: str
    port: int
    scenario: Scenario
    data_dir: Path | None = None
    key: str | None = None

    def __repr__(self) -> str:
        """Leave the key out: a repr ends up in logs."""
        return f"BrokerSettings(server={self.server!r}, host={self.host!r}, port={self.port})"


def run(settings: BrokerSettings, pipe: Connection) -> None:
    """Serve until SIGTERM; the target of a broker's process.

    Ends with code 1, after a line in the log, when the journal or the port cannot be used.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    take_name("mt5-broker")
    end_with_parent()
    os.set_blocking(pipe.fileno(), False)
    _LOG.addHandler(PipeHandler(pipe))
    _LOG.setLevel(logging.INFO)
    _LOG.propagate = False
    clock = SystemClock()
    try:
        journal = Journal.open(settings.data_dir, settings.server) if settings.data_dir else None
        house = House(settings.scenario, settings.server, clock, journal)
        try:
            asyncio.run(_serve(settings, house, clock, pipe))
        finally:
            house.close()
    except JournalError as error:
        _LOG.error("%s", error)
        raise SystemExit(1) from None
    except (OSError, sqlite3.Error) as error:
        _LOG.error("the broker of %s ends: %s", settings.server, error)
        raise SystemExit(1) from None


async def _serve(settings: BrokerSettings, house: House, clock: Clock, pipe: Connection) -> None:
    """Serve until somebody asks to end, or the supervisor is gone."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    supervisor = parent_process()
    if supervisor:
        loop.add_reader(supervisor.sentinel, stop.set)
    listening: asyncio.Future[int] = loop.create_future()
    listening.add_done_callback(lambda port: _announce(settings, port, pipe))
    server = Server(house, clock, settings.key)
    serving = asyncio.create_task(server.run(settings.host, settings.port, listening))
    stopped = asyncio.create_task(stop.wait())
    await asyncio.wait({serving, stopped}, return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    if serving.done():
        serving.result()
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)
    _LOG.info("the broker of %s has stopped", settings.server)


def _announce(settings: BrokerSettings, listening: "asyncio.Future[int]", pipe: Connection) -> None:
    if listening.cancelled():
        return
    port = listening.result()
    _LOG.info("broker of %s (pid %d) listens on port %d", settings.server, os.getpid(), port)
    pipe.send_bytes(msgspec.json.encode(Listening(port)))
