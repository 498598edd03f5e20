"""Commands: `run` (the default) and `health`."""

from __future__ import annotations

import argparse
import os
import sys

from terminal.supervisor.health import ills
from terminal.supervisor.settings import Refused, Settings
from terminal.supervisor.supervisor import Supervisor

_REFUSED = 2


def main() -> int:
    """Run one command and return its exit code; what cannot be done is said in one line."""
    parser = argparse.ArgumentParser(prog="mt5-supervisor", description=__doc__)
    commands = parser.add_subparsers(dest="command")
    commands.add_parser("run", help="run the terminals until SIGTERM")
    commands.add_parser("health", help="exit with 0 when every terminal is well")
    options = parser.parse_args()
    try:
        settings = Settings.from_environment(os.environ)
        if options.command == "health":
            return _health(settings)
        return Supervisor(settings).run()
    except Refused as refused:
        sys.stderr.write(f"mt5-supervisor: {refused}\n")
        return _REFUSED


def _health(settings: Settings) -> int:
    wrong = ills(settings)
    count = settings.terminals
    well = f"{count} terminal{'' if count == 1 else 's'} well"
    sys.stdout.write("; ".join(wrong) + "\n" if wrong else well + "\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
