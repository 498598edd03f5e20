"""``status`` and ``health``."""

from typing import Annotated, Any

import httpx
import typer
from rich import box
from rich.console import Console
from rich.table import Table

from terminal_sim.cli.control import DEFAULT_URL, Complaint, Control, KeyFile, Url
from terminal_sim.cli.wellness import Unwell, judge

_ELSEWHERE = "elsewhere"


def add_look_commands(app: typer.Typer) -> None:
    """Add the commands that only look."""
    for command in (status, health):
        app.command()(command)


def status(url: Url = DEFAULT_URL, key_file: KeyFile = None) -> None:
    """Show brokers, terminals and the faults that are on."""
    control = Control(url, key_file)
    console = Console()
    brokers = control.ask("GET", "brokers")["brokers"]
    terminals = control.ask("GET", "terminals")["terminals"]
    faults = control.ask("GET", "faults")["active"]
    brokers = [row | _broker_cells(row) for row in brokers]
    for title, names, rows in (
        ("brokers", "server address state accounts pid memory restarts", brokers),
        ("terminals", "n port state logged_in in_login_until pid memory restarts", terminals),
        ("faults", "id name terminal server acted", faults),
    ):
        if rows:
            console.print(_table(title, names.split(), rows))
    if not faults:
        console.print("no faults are on")


def health(
    url: Url = DEFAULT_URL,
    key_file: KeyFile = None,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds each may take.")] = 5.0,
) -> None:
    """Exit with 0 when everything serves, with 1 and a reason when it does not.

    A terminal that is being logged in holds its interpreter, as the real one does: it counts as
    well until the time its login may take is over.
    """
    control = Control(url, key_file, timeout)
    try:
        said = judge(lambda route: control.ask("GET", route), httpx.URL(control.url).host, timeout)
    except Unwell as trouble:
        raise Complaint(str(trouble)) from None
    typer.echo(said)


def _broker_cells(broker: dict[str, Any]) -> dict[str, Any]:
    # What a broker elsewhere has, only its own supervisor knows.
    known = broker["state"] != _ELSEWHERE
    return {
        "address": f"{broker['host']}:{broker['port']}",
        "accounts": len(broker.get("accounts") or ()) if known else None,
    }


def _table(title: str, names: list[str], rows: list[dict[str, Any]]) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in names:
        table.add_column(name.replace("_", " "), overflow="fold")
    for row in rows:
        memory = row.get("memory_bytes")
        shown = row | {"memory": f"{memory / 1e6:.1f} MB" if memory else None}
        table.add_row(*(_cell(shown.get(name)) for name in names))
    return table


def _cell(value: Any) -> str:  # noqa: ANN401 - of a JSON answer
    if isinstance(value, list):
        return " ".join(map(str, value))
    return "" if value is None else str(value)
