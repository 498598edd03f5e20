"""``fault``, ``faults`` and ``mend``."""

from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from terminal_sim.cli.control import DEFAULT_URL, USAGE, Complaint, Control, KeyFile, Url, secret
from terminal_sim.faults.catalogue import Description, descriptions, markdown, shown
from terminal_sim.faults.injection import FaultRefused, Injection, optional, read


def add_fault_commands(app: typer.Typer) -> None:
    """Add the commands that break things, and mend them."""
    for command in (fault, faults, mend):
        app.command()(command)


def fault(  # noqa: PLR0913 - a command line's options
    name: Annotated[str | None, typer.Argument(help="Which; without it all are listed.")] = None,
    parameters: Annotated[
        list[str] | None,
        typer.Argument(help="As in ms=200 seconds=30 password=@FILE.", metavar="NAME=VALUE ..."),
    ] = None,
    *,
    terminal: Annotated[int | None, typer.Option(help="Its number; all if left out.")] = None,
    server: Annotated[str | None, typer.Option(help="Whose broker; all if left out.")] = None,
    as_markdown: Annotated[bool, typer.Option("--markdown", hidden=True)] = False,
    url: Url = DEFAULT_URL,
    key_file: KeyFile = None,
) -> None:
    """Break something on purpose; without a name, list what can be broken."""
    if as_markdown:
        typer.echo(markdown(), nl=False)
        return
    if name is None:
        _print_catalogue()
        return
    takes_none = optional(name)
    asked: dict[str, Any] = dict(_parameter(text, takes_none) for text in parameters or ())
    asked |= {"name": name}
    asked |= {"terminal": terminal} if terminal is not None else {}
    asked |= {"server": server} if server is not None else {}
    body = Control(url, key_file).ask("POST", "faults", json=_request(asked))
    for begun in body["faults"]:
        _print_active(begun)
    if failed := [each for each in body["faults"] if each["error"]]:
        said = "; ".join(f"{_where(each)}: {each['error']}" for each in failed)
        raise Complaint(f"{name} could not begin on {said}")


def faults(url: Url = DEFAULT_URL, key_file: KeyFile = None) -> None:
    """List the faults that are on."""
    active = Control(url, key_file).ask("GET", "faults")["active"]
    for each in active:
        _print_active(each)
    if not active:
        typer.echo("no fault is on")


def mend(
    fault_id: Annotated[int | None, typer.Argument(help="Of the fault.", metavar="[ID]")] = None,
    *,
    everything: Annotated[bool, typer.Option("--all", help="All faults.")] = False,
    url: Url = DEFAULT_URL,
    key_file: KeyFile = None,
) -> None:
    """End a fault, or all of them."""
    if (fault_id is None) != everything:
        raise Complaint("give the id of a fault (terminal-sim faults lists them), or --all", USAGE)
    path = ("faults",) if fault_id is None else ("faults", fault_id)
    typer.echo(f"mended: {Control(url, key_file).ask('DELETE', *path)['mended']}")


def _parameter(text: str, takes_none: Collection[str]) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise Complaint(f"a parameter is NAME=VALUE, as in ms=200, not {text!r}", USAGE)
    if name == "functions":
        return name, [each for each in value.split(",") if each]
    if name == "password" and value.startswith("@"):
        return name, secret(Path(value[1:]))
    return name, None if value == "none" and name in takes_none else value


def _request(asked: dict[str, Any]) -> dict[str, Any]:
    """Return what the API is asked, with numbers for the texts that a command line has."""
    try:
        injection: Injection = read(asked, strict=False)
    except FaultRefused as refused:
        raise Complaint(str(refused), USAGE) from None
    numbers: dict[str, Any] = msgspec.to_builtins(injection.fault)
    where = {"terminal": injection.terminal, "server": injection.server}
    given = {name: numbers[name] for name in asked if name in numbers}
    return given | {name: value for name, value in where.items() if value is not None}


def _print_active(active: dict[str, Any]) -> None:
    given = " ".join(
        f"{name}={shown(value)}"
        for name, value in active["parameters"].items()
        if value is not None and value != []
    )
    state = active["error"] or ("" if active["applied"] else "not yet told")
    said = f"{active['id']:>4}  {active['name']} {given}  on {_where(active)}"
    typer.echo(f"{said}, acted {active['acted']} times  {state}".rstrip())


def _where(active: dict[str, Any]) -> str:
    return f"terminal {active['terminal']}" if "terminal" in active else str(active["server"])


def _print_catalogue() -> None:
    table = Table(show_lines=True, title="terminal-sim fault NAME [--terminal N | --server S] …")
    table.add_column("fault", style="bold", no_wrap=True)
    table.add_column("parameters")
    table.add_column("what happens, and what it stands for")
    for each in descriptions():
        table.add_row(f"{each.name}\n({each.scope})", _parameters(each), _story(each))
    Console().print(table)


def _parameters(described: Description) -> Text:
    lines = Text()
    for name, each in described.parameters.items():
        lines.append(name, "cyan")
        lines.append("=…  " if each.required else f"={shown(each.default)}  ")
        lines.append(f"{each.type}\n", "dim")
    lines.rstrip()
    return lines


def _story(described: Description) -> Text:
    practice = f"In practice: {described.in_practice}"
    return Text.assemble(described.what, "\n", (practice, "italic dim"))
