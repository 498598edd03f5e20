"""Acting on an account as a person at another terminal would."""

from typing import Annotated, Any

import typer

from terminal_sim.cli.control import DEFAULT_URL, USAGE, Complaint, Control, KeyFile, Url, finite

Account = Annotated[int, typer.Option(help="Number of the account.")]
Server = Annotated[str | None, typer.Option(help="Its server, should several know it.")]
By = Annotated[str, typer.Option(help="client, mobile or web.")]
Level = Annotated[float | None, typer.Option(min=0, callback=finite)]


def add_account_commands(app: typer.Typer) -> None:
    """Add the commands that act on accounts."""
    app.command("account")(show)
    app.command("open")(open_position)
    app.command("close")(close_position)
    # A negative number is no unknown option.
    app.command("deposit", context_settings={"ignore_unknown_options": True})(deposit)


def show(
    account: Annotated[int, typer.Argument(help="Its number.")],
    server: Server = None,
    url: Url = DEFAULT_URL,
    key_file: KeyFile = None,
) -> None:
    """Show an account as its broker has it."""
    seen = _on(Control(url, key_file), account, server).ask("GET")["account"]
    for name in ("login", "name", "currency", "leverage", "margin_mode", "balance", "credit"):
        typer.echo(f"{name:12} {seen[name]}")
    for each in seen["positions"]:
        typer.echo(
            f"position {each['ticket']}  {each['symbol']} {each['type']} {each['volume']}"
            f" at {each['price_open']}  sl {each['sl']} tp {each['tp']}"
        )
    for each in seen["orders"]:
        typer.echo(
            f"order {each['ticket']}  {each['symbol']} {each['type']} {each['volume']}"
            f" at {each['price']}"
        )


def open_position(  # noqa: PLR0913, PLR0917 - a command line's options
    symbol: Annotated[str, typer.Argument(help="As in EURUSD.")],
    type_: Annotated[str, typer.Argument(help="buy or sell.", metavar="buy|sell")],
    volume: Annotated[float, typer.Argument(help="Lots.", callback=finite)],
    account: Account,
    server: Server = None,
    sl: Level = None,
    tp: Level = None,
    comment: str = "",
    by: By = "client",
    url: Url = DEFAULT_URL,
    key_file: KeyFile = None,
) -> None:
    """Open a position at the market's price."""
    wanted = {"symbol": symbol, "type": type_, "volume": volume, "comment": comment, "by": by}
    wanted |= {name: level for name, level in (("sl", sl), ("tp", tp)) if level is not None}
    _told(_on(Control(url, key_file), account, server).ask("POST", "positions", json=wanted))


def close_position(  # noqa: PLR0913, PLR0917 - a command line's options
    ticket: Annotated[int, typer.Argument(help="Of the position.")],
    account: Account,
    server: Server = None,
    volume: Annotated[
        float | None, typer.Option(help="Lots; all if left out.", callback=finite)
    ] = None,
    by: By = "client",
    url: Url = DEFAULT_URL,
    key_file: KeyFile = None,
) -> None:
    """Close a position, or a part of it."""
    params = {"by": by} | ({} if volume is None else {"volume": volume})
    on = _on(Control(url, key_file), account, server)
    _told(on.ask("DELETE", "positions", ticket, params=params))


def deposit(
    amount: Annotated[float, typer.Argument(help="Paid out when negative.", callback=finite)],
    account: Account,
    server: Server = None,
    url: Url = DEFAULT_URL,
    key_file: KeyFile = None,
) -> None:
    """Pay money in, or out."""
    on = _on(Control(url, key_file), account, server)
    done = on.ask("POST", "deposits", json={"amount": amount})
    way = "in" if amount > 0 else "out"
    typer.echo(
        f"{done['retcode']} {done['comment']}: deal {done['deal']}, {abs(amount):.2f} paid {way}"
    )
    # Said after that: should this look fail, the money has been moved all the same.
    seen = on.ask("GET")["account"]
    typer.echo(f"balance {seen['balance']:.2f} {seen['currency']}")


class _Account:
    def __init__(self, control: Control, server: str, login: int) -> None:
        self._control = control
        self._path = "accounts", server, login

    def ask(self, method: str, *path: object, **given: Any) -> dict[str, Any]:  # noqa: ANN401 - httpx's
        return self._control.ask(method, *self._path, *path, **given)


def _on(control: Control, login: int, server: str | None) -> _Account:
    """Return the account of that number.

    Raises:
        Complaint: No broker here has it, or several have.
    """
    if server is not None:
        return _Account(control, server, login)
    brokers = control.ask("GET", "brokers")["brokers"]
    holding = [each["server"] for each in brokers if login in (each.get("accounts") or ())]
    if len(holding) == 1:
        return _Account(control, holding[0], login)
    if holding:
        raise Complaint(f"several servers have an account {login}: give --server", USAGE)
    away = ", ".join(each["server"] for each in brokers if each["state"] == "elsewhere")
    said = f"no broker run at {control.url} has an account {login}"
    raise Complaint(f"{said}; run elsewhere, with a supervisor there: {away}" if away else said)


def _told(result: dict[str, Any]) -> None:
    said = (
        f"{result['retcode']} {result['comment']}: order {result['order']}, deal {result['deal']}"
    )
    typer.echo(f"{said}, {result['volume']:g} at {result['price']:g}")
