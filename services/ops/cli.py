"""The operator's commands."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Final, NoReturn

import typer
from rich.console import Console

from mt5kit.errors import Mt5SwarmError
from mt5kit.networks import Networks
from mt5kit.state.postgres import AuditStore, Database, KeyStore
from mt5kit.vault import KeyRing
from ops.logins import OWNER, Login, UrlRefused, login, reached, renew
from ops.migrating import MigrationFailed, upgrade
from ops.rewrapping import Rewrapped
from ops.ring_check import RingLacksKeys, require_keys
from ops.ring_file import RingFile, RingFileBusy, RingFileFixed
from ops.rotation import Request, Rotated, Rotation, RotationRefused, free_id
from ops.settings import Furnished, MigrateSettings, NotFurnished, furnished, ring_path

app = typer.Typer(add_completion=False, pretty_exceptions_show_locals=False, no_args_is_help=True)
out = Console(highlight=False, soft_wrap=True)

# More would fill a screen; the query that finds them all is in docs/operations.md.
MOST_SHOWN: Final = 20
FAILURES: Final = (
    Mt5SwarmError,
    MigrationFailed,
    NotFurnished,
    RingFileBusy,
    RingFileFixed,
    RingLacksKeys,
    RotationRefused,
    UrlRefused,
)

# Each setting's role; the owner first, since it gives the others their passwords, and then the one
# that no service is, as which the key ring is checked.
ROLES: Final = {
    "owner_database_url": OWNER,
    "keys_database_url": "mt5_keys",
    "database_url": "mt5_app",
    "worker_database_url": "mt5_worker",
}

KeyRingOption = Annotated[
    Path | None, typer.Option("--key-ring", help="The vault's key ring; or KEY_RING_FILE.")
]
DataDir = Annotated[Path, typer.Option(help="Of `make run`, where nothing else is said.")]


@app.callback()
def main() -> None:
    """Operate mt5-swarm by hand."""


@app.command()
def rotate_keys(  # noqa: PLR0913, PLR0917 - options of a command
    key_ring: KeyRingOption = None,
    database_url_file: Annotated[
        Path | None,
        typer.Option(help="File with the URL as role mt5_keys; or KEYS_DATABASE_URL[_FILE]."),
    ] = None,
    data_dir: DataDir = Path(".local"),
    new_key: Annotated[
        str | None,
        typer.Option(help="Id of the key to make (or to activate); the date if none is given."),
    ] = None,
    no_new_key: Annotated[
        bool, typer.Option("--no-new-key", help="Only move rows to the key that is active.")
    ] = False,
    remove_key: Annotated[
        str | None, typer.Option(help="Id of a key to remove once no row is under it.")
    ] = None,
    actor: Annotated[str, typer.Option(help="Who does it, for the audit log.")] = "operator",
) -> None:
    """Put a new key in the ring and every stored password under it, while services run."""
    if no_new_key and new_key is not None:
        raise typer.BadParameter("--no-new-key and --new-key exclude each other")
    request = Request(new_key, no_new_key, remove_key, actor)
    try:
        place = furnished(key_ring, database_url_file, data_dir)
        done = asyncio.run(_rotate(place, request))
    except FAILURES as failure:
        _fail(failure)
    _report(done)
    if not done.complete:
        raise typer.Exit(1)


@app.command()
def add_key(
    key_ring: KeyRingOption = None,
    data_dir: DataDir = Path(".local"),
    key_id: Annotated[str | None, typer.Option(help="The date if none is given.")] = None,
) -> None:
    """Put a new key in the ring without using it yet: for rings that services get by deployment."""

    def add(ring: KeyRing) -> tuple[KeyRing, str]:
        added = key_id or free_id(set(ring.ids))
        return ring.with_key(added, active=False), f"key {added} is new; {ring.active} stays active"

    _change_ring(key_ring, data_dir, add)


@app.command()
def activate_key(
    key_id: Annotated[str, typer.Argument(help="A key that every service has by now.")],
    key_ring: KeyRingOption = None,
    data_dir: DataDir = Path(".local"),
) -> None:
    """Have services wrap under a key of the ring, once they are given the ring as it is then."""
    said = f"key {key_id} is active"
    _change_ring(key_ring, data_dir, lambda ring: (ring.activating(key_id), said))


@app.command()
def remove_key(
    key_id: Annotated[str, typer.Argument(help="A key under which nothing is stored any more.")],
    key_ring: KeyRingOption = None,
    data_dir: DataDir = Path(".local"),
) -> None:
    """Take a key out of a ring that services get by deployment, which checks that nothing needs it.

    Beside services that read the ring's file it is `rotate-keys --remove-key`.
    """
    said = f"key {key_id} is out of the ring"
    _change_ring(key_ring, data_dir, lambda ring: (ring.without_key(key_id), said))


def _change_ring(
    key_ring: Path | None, data_dir: Path, change: Callable[[KeyRing], tuple[KeyRing, str]]
) -> None:
    try:
        path = ring_path(key_ring, data_dir)
        with RingFile.held(path) as file:
            ring, said = change(file.read())
            file.replace(ring)
    except FAILURES as failure:
        _fail(failure)
    _say(f"{path}: {said}")


@app.command()
def migrate(
    wait: Annotated[
        float, typer.Option(min=0, help="Seconds to wait for the server to answer.")
    ] = 60.0,
) -> None:
    """Bring the schema up to date, and the roles' passwords to those in their URLs.

    Reads OWNER_DATABASE_URL_FILE (role mt5_owner), DATABASE_URL_FILE (mt5_app),
    WORKER_DATABASE_URL_FILE (mt5_worker) and KEYS_DATABASE_URL_FILE (mt5_keys). With
    KEY_RING_FILE it leaves services' passwords alone and ends with 1 where stored passwords are
    under keys that this ring lacks.
    """
    try:
        settings = MigrateSettings.from_environment()
        owner, keys, *services = (
            login(setting.upper(), getattr(settings, setting).get_secret_value(), role)
            for setting, role in ROLES.items()
        )
        ring = None if settings.key_ring_file is None else KeyRing.load(settings.key_ring_file)
        asyncio.run(_migrate(owner, keys, services, ring, wait))
    except FAILURES as failure:
        _fail(failure)


async def _migrate(
    owner: Login, keys: Login, services: list[Login], ring: KeyRing | None, wait_s: float
) -> None:
    database = await _open(owner.dsn.reveal(), "migrate")
    try:
        await reached(database, wait_s)
        await upgrade(owner.dsn.reveal(), _say)
        await _renew(database, keys)
        if ring is not None:
            await _check_ring(keys, ring)
        for one in services:
            await _renew(database, one)
    finally:
        await database.aclose()


async def _renew(database: Database, one: Login) -> None:
    changed = await renew(database, one)
    _say(f"{one.role}: {'password set' if changed else 'password as it was'}")


async def _check_ring(keys: Login, ring: KeyRing) -> None:
    # The owner sees no account: their policies bind it too.
    database = await _open(keys.dsn.reveal(), "migrate")
    try:
        await require_keys(KeyStore(database), ring)
    finally:
        await database.aclose()


def _say(line: str) -> None:
    out.print(line, markup=False)


async def _open(dsn: str, name: str, networks: Networks | None = None) -> Database:
    try:
        return await Database.open(dsn, application_name=name, max_connections=1, networks=networks)
    except ValueError:
        # Its own message may carry the URL, and that the password.
        raise NotFurnished("the database URL is malformed") from None


async def _rotate(place: Furnished, request: Request) -> Rotated:
    database = await _open(place.database_url, "rotate-keys", place.networks)
    try:
        with RingFile.held(place.key_ring) as file:
            return await Rotation(file, KeyStore(database), AuditStore(database)).run(request)
    finally:
        await database.aclose()


def _report(done: Rotated) -> None:
    rows = done.rows
    if done.added is not None:
        out.print(f"key {done.added} is new in the ring")
    out.print(f"active key: {rows.active}")
    out.print(f"{rows.rewrapped} rows moved to it, {rows.current} were under it already")
    if done.removed is not None:
        out.print(f"key {done.removed} is out of the ring")
    if done.kept_because is not None:
        out.print(f"[bold red]not done:[/] the key stays in the ring: {done.kept_because}")
    _report_left(rows)


def _report_left(rows: Rewrapped) -> None:
    for key_id, ids in rows.missing.items():
        out.print(f"[bold red]left alone:[/] {len(ids)} rows are under the missing key", end=" ")
        out.print(f"{key_id!r} (accounts.id {_shown(ids)})", markup=False)
    if rows.broken:
        out.print(f"[bold red]left alone:[/] the wrapped keys of {len(rows.broken)} rows", end=" ")
        out.print(f"do not open (accounts.id {_shown(rows.broken)})", markup=False)
    if rows.late:
        out.print(
            f"[bold red]not done:[/] {rows.late} rows were sealed under another key just now:"
            " a service does not follow the ring; run it again once all do"
        )


def _shown(ids: tuple[int, ...]) -> str:
    listed = ", ".join(map(str, ids[:MOST_SHOWN]))
    return f"{listed}, …" if len(ids) > MOST_SHOWN else listed


def _fail(failure: Exception) -> NoReturn:
    out.print("[bold red]error:[/]", end=" ")
    out.print(str(failure), markup=False)
    raise typer.Exit(1) from None
