"""``restart`` and ``logs``: acting on the processes themselves."""

from typing import Annotated

import typer

from terminal_sim.cli.control import DEFAULT_URL, USAGE, Complaint, Control, KeyFile, Url

Number = Annotated[int | None, typer.Argument(help="Of the terminal.", metavar="[N]")]
Server = Annotated[str | None, typer.Option(help="Whose broker, instead of a terminal.")]


def add_process_commands(app: typer.Typer) -> None:
    """Add the commands that act on processes."""
    for command in (restart, logs):
        app.command()(command)


def restart(
    number: Number = None,
    *,
    server: Server = None,
    url: Url = DEFAULT_URL,
    key_file: KeyFile = None,
) -> None:
    """End a terminal or a broker and start it again, a frozen one too."""
    path = _process(number, server)
    body = Control(url, key_file).ask("POST", *path, "restart")
    process = body["terminal"] if server is None else body["broker"]
    name = f"terminal {number}" if server is None else f"the broker of {server}"
    typer.echo(f"{name} is {process['state']}: port {process['port']}, pid {process['pid']}")


def logs(
    number: Number = None,
    *,
    server: Server = None,
    lines: Annotated[int, typer.Option(min=1, help="How many of the last.")] = 100,
    url: Url = DEFAULT_URL,
    key_file: KeyFile = None,
) -> None:
    """Show the last lines of a terminal's or a broker's log."""
    path = _process(number, server)
    body = Control(url, key_file).ask("GET", *path, "logs", params={"lines": lines})
    for line in body["logs"]:
        typer.echo(f"{line['timestamp']} {line['level']} {line['message']}")


def _process(number: int | None, server: str | None) -> tuple[object, ...]:
    if (number is None) == (server is None):
        raise Complaint("give the number of a terminal, or --server for a broker", USAGE)
    return ("terminals", number) if server is None else ("brokers", server)
