"""Command line of the simulator."""

import argparse
import logging
import sys
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

_DEMO = "scenario/demo.toml"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    return _serve(options)


def _serve(given: argparse.Namespace) -> int:
    # Imported here: every terminal imports this file again, and needs none of it.
    from terminal_sim.market.clocks import SystemClock  # noqa: PLC0415
    from terminal_sim.scenario.model import ScenarioError  # noqa: PLC0415
    from terminal_sim.supervisor.serve import Options, ServeError, serve  # noqa: PLC0415
    from terminal_sim.terminal.session import Timing  # noqa: PLC0415

    options = Options(
        scenario=given.scenario,
        host=given.host,
        terminals=given.terminals,
        port_base=given.port_base,
        control_port=given.control_port,
        key_file=given.key_file,
        ready_file=given.ready_file,
        timing=Timing(given.login_seconds, given.call_seconds),
    )
    try:
        serve(options, SystemClock())
    except (ScenarioError, ServeError) as error:
        print(f"terminal-sim: {error}", file=sys.stderr)  # noqa: T201 - the answer to a person
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="terminal-sim", description="Simulated MetaTrader 5.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    serve = commands.add_parser("serve", help="run terminals and their supervisor")
    demo = Path(str(files("terminal_sim").joinpath(_DEMO)))
    add = serve.add_argument
    add("--scenario", type=Path, default=demo, help="TOML or JSON file (default: the demo)")
    add("--host", default="127.0.0.1", help="address of the terminals and of the control API")
    add("--terminals", type=_count, default=1, help="how many terminals (default 1)")
    add("--port-base", type=_port, default=8001, help="port of the first terminal; 0: free ports")
    add("--control-port", type=_port, default=8100, help="port of the control API; 0: a free port")
    add("--key-file", type=Path, help="file with the control API's key")
    add("--ready-file", type=Path, help="JSON file written when everything listens")
    add("--login-seconds", type=_seconds, default=1.5, help="how long a login takes (default 1.5)")
    add("--call-seconds", type=_seconds, default=0.0, help="how long other calls take (default 0)")
    return parser


def _count(text: str) -> int:
    return _whole(text, 1, 500)


def _port(text: str) -> int:
    return _whole(text, 0, 65_535)


def _whole(text: str, low: int, high: int) -> int:
    number = int(text)
    if not low <= number <= high:
        raise argparse.ArgumentTypeError(f"must be from {low} to {high}")
    return number


def _seconds(text: str) -> float:
    number = float(text)
    if not 0 <= number <= 3600:  # noqa: PLR2004 - an hour; NaN fails too
        raise argparse.ArgumentTypeError("must be from 0 to 3600 seconds")
    return number


if __name__ == "__main__":
    sys.exit(main())
