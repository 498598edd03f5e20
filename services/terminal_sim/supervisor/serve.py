"""The supervisor's process: brokers, terminals, and an HTTP API that never freezes."""

import asyncio
import contextlib
import logging
import os
import secrets
import signal
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec
import uvicorn

from terminal_sim.broker.process import BrokerSettings
from terminal_sim.market.clocks import Clock
from terminal_sim.scenario.loading import load
from terminal_sim.scenario.model import Scenario
from terminal_sim.supervisor.control import create_app
from terminal_sim.supervisor.data_dir import held
from terminal_sim.supervisor.draining import occupied, until_left
from terminal_sim.supervisor.fault_book import FaultBook
from terminal_sim.supervisor.fleet import BrokerFailed, Fleet
from terminal_sim.supervisor.options import Options, ServeError, reason
from terminal_sim.supervisor.plan import follow
from terminal_sim.terminal.process import Settings

_LOG = logging.getLogger("terminal_sim.supervisor")
_BACKLOG = 128
# A client must be the one who closes an idle connection; those in Python keep one for 5 s.
_KEEP_ALIVE_S = 75


class _Server(uvicorn.Server):
    """Leaves signals to the supervisor, which has processes to end."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def serve(options: Options, clock: Clock) -> None:
    """Run until SIGTERM or SIGINT; at SIGTERM clients are given time to leave, if there is any.

    A second signal ends it at once.

    Raises:
        ScenarioError: The scenario file was refused.
        ServeError: The key is missing, the data directory or a port is in use, a broker cannot be
            run, the ready file cannot be written, or the API has ended by itself.
    """
    key = options.key()
    scenario = load(options.scenario, clock.now_ms()) if options.scenario else None
    options.check(scenario)
    # Numeric libraries would start threads that a terminal's few numbers never repay.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    with contextlib.ExitStack() as kept:
        if options.data_dir and options.here(scenario):
            kept.enter_context(held(options.data_dir))
        _remove_stale(options.ready_file)
        asyncio.run(_serve(options, scenario, key))


def _remove_stale(ready_file: Path | None) -> None:
    """Remove what an earlier run has left: nobody is to read of a simulator that has ended."""
    try:
        if ready_file:
            ready_file.unlink(missing_ok=True)
    except OSError as error:
        raise ServeError(f"{ready_file}: {reason(error)}") from error


async def _serve(options: Options, scenario: Scenario | None, key: str | None) -> None:
    names = {server.name for server in scenario.servers} if scenario else set(options.brokers)
    for name in options.brokers.keys() - names:
        _LOG.info("%s, a server of --broker, is none of the scenario", name)
    with contextlib.ExitStack() as opened:
        try:
            address = options.host, options.control_port
            control = opened.enter_context(socket.create_server(address, backlog=_BACKLOG))
            fleet = Fleet(_terminals(options), _brokers(options, scenario), options.brokers)
        except OSError as error:
            raise ServeError(f"cannot listen: {error.strerror}") from error
        await _supervise(options, fleet, FaultBook(fleet, scenario), (control, key))


async def _supervise(
    options: Options, fleet: Fleet, book: FaultBook, api: tuple[socket.socket, str | None]
) -> None:
    control, key = api
    config = uvicorn.Config(
        create_app(fleet, book, key),
        log_config=None,
        access_log=False,
        lifespan="off",
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=1,
    )
    server = _Server(config)
    stop, hurry = _signals()
    serving = asyncio.create_task(server.serve(sockets=[control]))
    starting = asyncio.create_task(_start(options, fleet, book, control))
    try:
        await _until_stopped(stop, starting, serving)
        if starting.done():
            await _drain(options, fleet, hurry)
    finally:
        starting.cancel()
        await fleet.stop()
        server.should_exit = True
        await serving
    _LOG.info("stopped")


def _signals() -> tuple[asyncio.Event, asyncio.Event]:
    """Return what a signal to stop sets, and what one sets that is not to be kept waiting."""
    stop, hurry = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def signalled(number: signal.Signals) -> None:
        # Whoever types Ctrl-C is looking on.
        if stop.is_set() or number is signal.SIGINT:
            hurry.set()
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, signalled, number)
    return stop, hurry


async def _drain(options: Options, fleet: Fleet, hurry: asyncio.Event) -> None:
    """Say that the terminals are about to end, and wait for their clients to leave."""
    if not (options.drain_s and fleet.terminals):
        return
    fleet.draining = True
    _LOG.info("draining, for %g s at most", options.drain_s)
    ports = {member.port for member in fleet.terminals.values()}
    left = await until_left(lambda: occupied(options.host, ports), options.drain_s, hurry)
    _LOG.info("every client has left" if left else "the clients that are left are cut off")


async def _until_stopped(
    stop: asyncio.Event, starting: asyncio.Task[None], serving: asyncio.Task[None]
) -> None:
    """Wait for the signal to stop, and for whatever makes waiting any longer pointless."""
    stopped = asyncio.create_task(stop.wait())
    await asyncio.wait({stopped, starting, serving}, return_when=asyncio.FIRST_COMPLETED)
    if starting.done():
        starting.result()
        await asyncio.wait({stopped, serving}, return_when=asyncio.FIRST_COMPLETED)
    if not stopped.done():
        stopped.cancel()
        raise ServeError("the control API has ended by itself")


async def _start(options: Options, fleet: Fleet, book: FaultBook, control: socket.socket) -> None:
    try:
        await fleet.start()
    except BrokerFailed as failed:
        raise ServeError(str(failed)) from None
    url = f"http://{options.host}:{control.getsockname()[1]}"
    counts = _counted(len(fleet.brokers), "broker"), _counted(len(fleet.terminals), "terminal")
    _LOG.info("listening: %s and %s; control at %s", *counts, url)
    follow(book)
    if options.ready_file:
        ready = {"control_url": url, "pid": os.getpid(), **_addresses(fleet)}
        try:
            _write_atomically(options.ready_file, msgspec.json.encode(ready))
        except OSError as error:
            raise ServeError(f"{options.ready_file}: {reason(error)}") from error


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _addresses(fleet: Fleet) -> dict[str, list[dict[str, object]]]:
    terminals = fleet.terminals.items()
    brokers = fleet.brokers.items()
    return {
        "terminals": [{"n": n, "host": each.host, "port": each.port} for n, each in terminals],
        "brokers": [{"server": s, "host": each.host, "port": each.port} for s, each in brokers],
    }


def _terminals(options: Options) -> list[Settings]:
    return [
        Settings(
            number=n,
            host=options.host,
            port=options.port_base and options.port_base + n - 1,
            brokers={},
            timing=options.timing,
            seed=options.fault_seed,
        )
        for n in range(1, options.terminals + 1)
    ]


def _brokers(options: Options, scenario: Scenario | None) -> list[BrokerSettings]:
    # Only this supervisor has to prove itself to its brokers: a key that nobody else ever knows.
    key = secrets.token_hex(32)
    return [
        BrokerSettings(
            server=server.name,
            host=options.host,
            port=options.broker_port and options.broker_port + i,
            scenario=scenario,
            data_dir=options.data_dir,
            key=key,
        )
        for i, server in enumerate(options.here(scenario))
        if scenario
    ]


def _write_atomically(path: Path, content: bytes) -> None:
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as draft:
        draft.write(content)
    try:
        Path(draft.name).replace(path)
    except OSError:
        Path(draft.name).unlink()
        raise
