"""``terminal-sim serve``."""

import logging
import math
import sys
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any

import typer

from terminal_sim.cli.control import Complaint
from terminal_sim.market.clocks import SystemClock
from terminal_sim.scenario.model import ScenarioError
from terminal_sim.supervisor.options import Options, ServeError
from terminal_sim.terminal.session import Timing

_CANNOT_START = 2
_MOST_TERMINALS = 500
_HOUR_S = 3600.0


def add_serve(app: typer.Typer) -> None:
    """Add the command that runs everything."""
    app.command()(serve)


def _seconds(value: float) -> float:
    if not math.isfinite(value):
        raise typer.BadParameter("is not a number of seconds")
    return value


def _port(said: str) -> Any:  # noqa: ANN401 - typer's
    return typer.Option(min=0, max=65_535, help=said)


def _duration(said: str) -> Any:  # noqa: ANN401 - typer's
    return typer.Option(min=0, max=_HOUR_S, callback=_seconds, help=said)


def serve(  # noqa: PLR0913 - a command line's options
    *,
    scenario: Annotated[
        Path | None,
        typer.Option(help="TOML or JSON file; the demo, unless --broker says where brokers are."),
    ] = None,
    host: Annotated[str, typer.Option(help="Address of everything that listens.")] = "127.0.0.1",
    terminals: Annotated[int, typer.Option(min=0, max=_MOST_TERMINALS, help="How many.")] = 1,
    port_base: Annotated[int, _port("Port of terminal 1; 0: free ports.")] = 8001,
    broker_port: Annotated[int, _port("Port of broker 1; 0: free ports.")] = 0,
    broker: Annotated[
        list[str] | None,
        typer.Option(help="Where the broker of a server is run.", metavar="NAME=HOST:PORT"),
    ] = None,
    data_dir: Annotated[
        Path | None, typer.Option(help="Directory in which brokers keep their state.")
    ] = None,
    control_port: Annotated[int, _port("Of the control API; 0: free.")] = 8100,
    key_file: Annotated[Path | None, typer.Option(help="File with the control API's key.")] = None,
    ready_file: Annotated[
        Path | None, typer.Option(help="JSON file written when everything listens.")
    ] = None,
    login_seconds: Annotated[float, _duration("How long a login takes.")] = 1.5,
    call_seconds: Annotated[float, _duration("How long other calls take.")] = 0.0,
    trade_timeout: Annotated[
        float, _duration("How long a terminal waits for the answer to a trade.")
    ] = 10.0,
    seed_faults: Annotated[int, typer.Option(help="Seed of the chances of faults.")] = 0,
    drain_seconds: Annotated[
        float, _duration("How long clients have to leave at SIGTERM; 0: it ends at once.")
    ] = 0.0,
) -> None:
    """Run brokers and terminals, and their supervisor."""
    from terminal_sim.supervisor.serve import serve as run  # noqa: PLC0415 - a web server

    if scenario is None and not broker:
        scenario = Path(str(files("terminal_sim").joinpath("scenario/demo.toml")))
    options = Options(
        scenario=scenario,
        host=host,
        terminals=terminals,
        port_base=port_base,
        broker_port=broker_port,
        brokers=dict(map(_broker, broker or ())),
        data_dir=data_dir,
        control_port=control_port,
        key_file=key_file,
        ready_file=ready_file,
        timing=Timing(login_seconds, call_seconds, trade_timeout),
        fault_seed=seed_faults,
        drain_s=drain_seconds,
    )
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    try:
        run(options, SystemClock())
    except (ScenarioError, ServeError) as error:
        raise Complaint(str(error), _CANNOT_START) from None


def _broker(text: str) -> tuple[str, tuple[str, int]]:
    name, _, address = text.rpartition("=")
    host, _, port = address.rpartition(":")
    if not name or not host or not port.isdecimal() or not 0 < int(port) <= 65_535:  # noqa: PLR2004 - the last port
        raise typer.BadParameter(f"--broker is NAME=HOST:PORT, not {text!r}")
    return name, (host.strip("[]"), int(port))
