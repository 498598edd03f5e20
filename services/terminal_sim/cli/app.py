"""All commands, and how they fail: in one line that a person can act on."""

import os
import sys
from collections.abc import Sequence

import typer
from typer.exceptions import TyperException
from typer.main import get_command

from terminal_sim.cli.accounts import add_account_commands
from terminal_sim.cli.control import Complaint
from terminal_sim.cli.faults import add_fault_commands
from terminal_sim.cli.looks import add_look_commands
from terminal_sim.cli.processes import add_process_commands
from terminal_sim.cli.serving import add_serve

_USAGE = 2
_INTERRUPTED = 130


def run(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code: 1 it failed, 2 it was not understood."""
    command = get_command(_app())
    given = None if arguments is None else list(arguments)
    try:
        code = command.main(given, prog_name="terminal-sim", standalone_mode=False)
    except Complaint as complaint:
        _say(str(complaint))
        return complaint.exit_code
    except TyperException as misused:
        if said := misused.format_message():  # without a command, help has been printed instead
            _say(said)
        return _USAGE
    except typer.Abort:
        return _INTERRUPTED
    except BrokenPipeError:  # somebody reads the first lines only
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115 - for the exit
        return 1
    return code if isinstance(code, int) else 0


def _app() -> typer.Typer:
    app = typer.Typer(
        help="A simulated MetaTrader 5 that you can break on purpose.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
    )
    add_serve(app)
    add_look_commands(app)
    add_process_commands(app)
    add_fault_commands(app)
    add_account_commands(app)
    return app


def _say(sentence: str) -> None:
    print(f"terminal-sim: {' '.join(sentence.split())}", file=sys.stderr)  # noqa: T201 - the answer
