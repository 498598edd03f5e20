"""The supervisor's process: terminals, their keeper, and an HTTP API that never freezes."""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import tempfile
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import msgspec
import uvicorn

from terminal_sim.market.clocks import Clock
from terminal_sim.scenario.loading import load
from terminal_sim.supervisor.control import create_app
from terminal_sim.supervisor.fleet import Fleet
from terminal_sim.terminal.process import Settings
from terminal_sim.terminal.session import Timing

_LOG = logging.getLogger("terminal_sim.supervisor")
_BACKLOG = 128


class ServeError(Exception):
    """The simulator cannot start; the message is one line for a person."""


class Options(msgspec.Struct, frozen=True):
    """What ``serve`` was told.

    Attributes:
        scenario: Scenario file.
        host: Address of the terminals and of the API.
        terminals: How many.
        port_base: Port of the first terminal; 0 takes free ports.
        control_port: Port of the API; 0 takes a free port.
        key_file: File with the API's key.
        ready_file: Written when everything listens.
        timing: How long calls take.
    """

    scenario: Path
    host: str
    terminals: int
    port_base: int
    control_port: int
    key_file: Path | None
    ready_file: Path | None
    timing: Timing


class _Server(uvicorn.Server):
    """Leaves signals to the supervisor, which has terminals to end."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def serve(options: Options, clock: Clock) -> None:
    """Run until SIGTERM or SIGINT.

    Raises:
        ScenarioError: The scenario file was refused.
        ServeError: The key is missing, a port is in use, the ready file cannot be written, or
            the API has ended by itself.
    """
    key = _key(options)
    if options.ready_file and not options.ready_file.parent.is_dir():
        raise ServeError(f"{options.ready_file}: its directory does not exist")
    scenario = load(options.scenario, clock.now_ms())
    # Numeric libraries would start threads that a terminal's few numbers never repay.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    settings = [
        Settings(
            number=n,
            host=options.host,
            port=options.port_base and options.port_base + n - 1,
            scenario=scenario,
            timing=options.timing,
        )
        for n in range(1, options.terminals + 1)
    ]
    asyncio.run(_serve(options, settings, key))


async def _serve(options: Options, settings: list[Settings], key: str | None) -> None:
    try:
        control = socket.create_server((options.host, options.control_port), backlog=_BACKLOG)
        fleet = Fleet(settings)
    except OSError as error:
        raise ServeError(f"cannot listen: {error.strerror}") from error
    config = uvicorn.Config(
        create_app(fleet, key),
        log_config=None,
        access_log=False,
        lifespan="off",
        timeout_graceful_shutdown=1,
    )
    server = _Server(config)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    serving = asyncio.create_task(server.serve(sockets=[control]))
    starting = asyncio.create_task(_start(options, fleet, control))
    try:
        await _until_stopped(stop, starting, serving)
    finally:
        starting.cancel()
        await fleet.stop()
        server.should_exit = True
        await serving
    _LOG.info("stopped")


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


async def _start(options: Options, fleet: Fleet, control: socket.socket) -> None:
    await fleet.start()
    url = f"http://{options.host}:{control.getsockname()[1]}"
    _LOG.info("%d terminals listen; control at %s", len(fleet.members), url)
    if options.ready_file:
        terminals = [
            {"n": m.settings.number, "host": m.settings.host, "port": m.settings.port}
            for m in fleet
        ]
        ready = {"control_url": url, "pid": os.getpid(), "terminals": terminals}
        try:
            _write_atomically(options.ready_file, msgspec.json.encode(ready))
        except OSError as error:
            raise ServeError(f"{options.ready_file}: {error.strerror}") from error


def _key(options: Options) -> str | None:
    if options.key_file:
        try:
            key = options.key_file.read_text(encoding="utf-8").strip()
        except OSError as error:
            raise ServeError(f"{options.key_file}: {error.strerror}") from error
        if not key:
            raise ServeError(f"{options.key_file}: is empty")
        return key
    if not _is_loopback(options.host):
        raise ServeError(
            f"without --key-file only a loopback address is served, not {options.host}"
        )
    return None


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _write_atomically(path: Path, content: bytes) -> None:
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as draft:
        draft.write(content)
    try:
        Path(draft.name).replace(path)
    except OSError:
        Path(draft.name).unlink()
        raise
