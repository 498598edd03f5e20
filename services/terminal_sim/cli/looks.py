"""``status`` and ``health``."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime
from typing import Annotated, Any

import httpx
import typer
from rich import box
from rich.console import Console
from rich.table import Table

from terminal_sim.cli.control import DEFAULT_URL, Complaint, Control, KeyFile, Url

_SERVING = frozenset(("running", "draining"))
_ELSEWHERE = "elsewhere"
_AT_ONCE = 16


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
    brokers = control.ask("GET", "brokers")["brokers"]
    terminals = control.ask("GET", "terminals")["terminals"]
    ill = [f"broker {b['server']} is {b['state']}" for b in brokers if not _well(b)]
    ill += [f"terminal {t['n']} is {t['state']}" for t in terminals if not _well(t)]
    host = httpx.URL(control.url).host
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        serving = [each for each in terminals if each["state"] in _SERVING]
        answers = pool.map(lambda each: _shakes_hands(each, host, timeout), serving)
        silent = {
            each["n"] for each, answered in zip(serving, answers, strict=True) if not answered
        }
    if silent:
        # It may have begun a login since; then it has an excuse.
        later = control.ask("GET", "terminals")["terminals"]
        found = [each["n"] for each in later if each["n"] in silent and not _in_login(each)]
        ill += [f"terminal {n} does not answer" for n in found]
    if ill:
        raise Complaint("; ".join(ill))
    here = [each for each in brokers if each["state"] != _ELSEWHERE]
    said = f"{_count(len(here), 'broker')} and {_count(len(terminals), 'terminal')} serve"
    away = len(brokers) - len(here)
    typer.echo(f"{said}; {_count(away, 'broker')} run elsewhere" if away else said)


def _well(process: dict[str, Any]) -> bool:
    return process["state"] in _SERVING or process["state"] == _ELSEWHERE


def _broker_cells(broker: dict[str, Any]) -> dict[str, Any]:
    # What a broker elsewhere has, only its own supervisor knows.
    known = broker["state"] != _ELSEWHERE
    return {
        "address": f"{broker['host']}:{broker['port']}",
        "accounts": len(broker.get("accounts") or ()) if known else None,
    }


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _in_login(terminal: dict[str, Any]) -> bool:
    until = terminal["in_login_until"]
    return until is not None and datetime.fromisoformat(until) > datetime.now(UTC)


def _shakes_hands(terminal: dict[str, Any], host: str, timeout_s: float) -> bool:
    """Return whether a terminal is in a login, or its interpreter answers in time."""
    if _in_login(terminal):
        return True
    from rpyc import connect_stream  # noqa: PLC0415 - only this command speaks it
    from rpyc.core.service import ClassicClient  # noqa: PLC0415
    from rpyc.core.stream import SocketStream  # noqa: PLC0415

    try:
        with closing(SocketStream.connect(host, terminal["port"], timeout=timeout_s)) as stream:
            patience = {"sync_request_timeout": timeout_s}
            link = connect_stream(stream, service=ClassicClient, config=patience)
            return bool(link.root)
    except (OSError, EOFError, TimeoutError):
        return False


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
